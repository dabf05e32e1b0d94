// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"time"
)

// Record is a flow as "-o json" prints it, one object per line. Src is the sender of the
// first packet that dpclass saw. Times are in UTC, sizes in IP bytes on the wire.
type Record struct {
	Iface              string     `json:"iface,omitempty"`
	Src                netip.Addr `json:"src"`
	Dst                netip.Addr `json:"dst"`
	SrcPort            uint16     `json:"src_port"`
	DstPort            uint16     `json:"dst_port"`
	Proto              string     `json:"proto"`
	VLAN               uint32     `json:"vlan,omitempty"` // outer id << 12 | inner id
	Category           string     `json:"category"`
	CategoryConfidence float64    `json:"category_confidence"`
	App                string     `json:"app"`
	AppConfidence      float64    `json:"app_confidence"`
	Source             string     `json:"source"`          // category_source, or app_source if that is ""
	CategorySource     string     `json:"category_source"` // see [Source]; "" while undecided
	AppSource          string     `json:"app_source"`
	Final              bool       `json:"final"` // every task that has a verdict has its final one
	CategoryFinal      bool       `json:"category_final"`
	AppFinal           bool       `json:"app_final"`
	Protocol           string     `json:"protocol"`    // application protocol, such as tls; "" if not recognised
	Name               string     `json:"name"`        // server name; "" if not known
	NameSource         string     `json:"name_source"` // see [NameSource]
	ALPN               string     `json:"alpn,omitempty"`
	JA4                string     `json:"ja4"`
	Process            string     `json:"process,omitempty"` // that opened its socket on this machine; "" if not known
	Packets            uint64     `json:"packets"`
	Bytes              uint64     `json:"bytes"`
	*Live
	Samples   int       `json:"samples"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
}

// Live is the part of a Record that exists only for flows of an interface, not for flows
// of a capture file. In and Out are as the interface sees them.
type Live struct {
	PacketsIn  uint64 `json:"packets_in"`
	BytesIn    uint64 `json:"bytes_in"`
	PacketsOut uint64 `json:"packets_out"`
	BytesOut   uint64 `json:"bytes_out"`
	Dropped    uint64 `json:"dropped"`

	DroppedBytes uint64  `json:"dropped_bytes"`
	Rate         float64 `json:"rate,omitempty"`         // bits per second that pass, where a list computes rates
	DroppedRate  float64 `json:"dropped_rate,omitempty"` // bits per second that the policy drops

	Generation uint32 `json:"generation"`
	Midstream  bool   `json:"midstream,omitempty"`
	Held       bool   `json:"held,omitempty"`     // rules act by the verdict of an earlier flow of this 5-tuple, until this one's is final
	Ended      string `json:"ended,omitempty"`    // fin, rst or idle
	Rule       int    `json:"rule,omitempty"`     // number of the policy rule that acts on received packets, from 1; 0: none
	RuleOut    int    `json:"rule_out,omitempty"` // the same for sent packets
	DryRun     bool   `json:"dry_run,omitempty"`  // the rules only count what they would do
	Model      string `json:"model,omitempty"`    // model of the category, or of the app if the category has none
}

// SetVerdicts copies the verdicts into the record.
func (r *Record) SetVerdicts(v *Verdicts) {
	category, app := &v[Category], &v[App]
	r.Category, r.CategoryConfidence = category.Label, category.Confidence
	r.CategorySource, r.CategoryFinal = category.Source.String(), category.Final
	r.App, r.AppConfidence = app.Label, app.Confidence
	r.AppSource, r.AppFinal = app.Source.String(), app.Final
	if r.Source = r.CategorySource; r.Source == "" {
		r.Source = r.AppSource
	}
	r.Final = v.Final()
}

// SetEvidence copies the evidence into the record.
func (r *Record) SetEvidence(e *Evidence) {
	r.Protocol, r.ALPN, r.JA4 = e.Protocol.String(), e.ALPN, e.JA4
	r.Name, r.NameSource = e.Name, e.NameSource.String()
}

// Key returns the flow's canonical key.
func (r *Record) Key() Key {
	proto, _ := ParseProto(r.Proto)
	key, _ := MakeKey(proto, netip.AddrPortFrom(r.Src, r.SrcPort), netip.AddrPortFrom(r.Dst, r.DstPort), r.VLAN)
	return key
}
