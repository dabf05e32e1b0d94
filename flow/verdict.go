// SPDX-License-Identifier: Apache-2.0

package flow

import "net/netip"

// Direction is the direction of a packet as the interface sees it.
type Direction uint8

// In is for received packets, Out for sent ones.
const (
	In Direction = iota
	Out
)

// String returns "in" or "out".
func (d Direction) String() string {
	if d == Out {
		return "out"
	}
	return "in"
}

// Source says who gave a verdict.
type Source uint8

// The sources of a verdict.
const (
	SourceNone     Source = iota
	SourceModel           // a neural network
	SourceOperator        // the user: "flows set"
	SourceName            // the server name, by the catalogue
	SourceProtocol        // the protocol
)

var sourceNames = [...]string{"", "model", "operator", "name", "protocol"}

// String returns "", "model", "operator", "name" or "protocol".
func (s Source) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return ""
}

// ParseSource returns the source with the given name.
func ParseSource(name string) (s Source, ok bool) {
	for n := 1; n < len(sourceNames); n++ {
		if sourceNames[n] == name {
			return Source(n), true
		}
	}
	return SourceNone, false
}

// ID identifies one life of a flow on an interface. When a 5-tuple is used again, the
// new flow gets another Generation. Iface is the agent's number for the interface.
type ID struct {
	Iface      int
	Key        Key
	Generation uint32
}

// The sample budget of a flow: how many of its payload packets a model reads.
const (
	DefaultSamples = 5   // if neither the operator nor the model sets it
	MaxSamples     = 255 // a batch of operations counts samples in a byte
)

// Sample is one payload packet of a flow.
type Sample struct {
	ID        ID
	Direction Direction
	FromA     bool   // sent by the key's endpoint A
	TwoWay    bool   // packets of both ends were seen, or only one direction is watched
	Inner     bool   // from a link without Ethernet, such as a tun device: it may be inside a VPN
	Index     int    // number of samples of the flow before this one
	Time      int64  // CLOCK_MONOTONIC, in ns
	Length    int    // bytes on the wire, from the IP header on
	Packet    []byte // from the IP header on, at most 1500 bytes; addresses and checksums are zero
}

// Source returns the address at the far end of the wire: the sender of a received packet,
// the receiver of a sent one. Of an IPv6 address it is the /64, because a host may use all
// of it. Shares of queues are by source.
func (s *Sample) Source() netip.Addr {
	end := s.ID.Key.B
	if s.FromA == (s.Direction == In) {
		end = s.ID.Key.A
	}
	if addr := end.Addr(); addr.Is6() {
		prefix, _ := addr.Prefix(64) // cannot fail: an IPv6 address has 128 bits
		return prefix.Addr()
	}
	return end.Addr()
}

// Verdict is the answer to one task for one flow. Label is "" while the flow is
// undecided or if no model has the task. It is [Unknown] if the model rejects the flow.
type Verdict struct {
	Label      string
	Confidence float64 // 0 to 1
	Source     Source
	Model      string // name of the model; "" for an operator's verdict
	Final      bool   // only an operator can change it now
}

// Verdicts holds the verdicts of a flow, indexed by Task.
type Verdicts [NumTasks]Verdict

// Final reports whether there is at least one verdict and every verdict is final.
func (v *Verdicts) Final() bool {
	final := false
	for t := range v {
		if v[t].Source == SourceNone {
			continue
		}
		if !v[t].Final {
			return false
		}
		final = true
	}
	return final
}

// Decision holds the verdicts for one flow, ready to be stored in the kernel.
type Decision struct {
	ID       ID
	Verdicts Verdicts
	Evidence Evidence
	Settled  bool  // no verdict will change any more: the flow needs no more samples
	Samples  int   // number of samples used for the verdicts
	Time     int64 // CLOCK_MONOTONIC of the newest sample, in ns; 0 for an operator's verdict
}
