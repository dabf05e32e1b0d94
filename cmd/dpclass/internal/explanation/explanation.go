// SPDX-License-Identifier: Apache-2.0

// Package explanation shows why a flow has its verdicts, as text and as JSON.
package explanation

import (
	"encoding/hex"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/flow"
)

// Page is the explanation of one flow.
type Page struct {
	Record  *flow.Record // as the flow is now
	Why     *classifier.Explanation
	Samples []flow.Sample
}

// Object is the JSON of a page: the flow's record, and why.
type Object struct {
	File string `json:"file,omitempty"` // set if several files are read
	*flow.Record
	Why Why `json:"explanation"`
}

// Why is the JSON of an explanation.
type Why struct {
	Signature string                                `json:"signature"`
	Catalogue *names.Service                        `json:"catalogue"` // null: the name is not listed
	Asked     bool                                  `json:"network_asked"`
	Models    map[flow.Task]string                  `json:"models"`
	Networks  map[flow.Task][]classifier.Likelihood `json:"networks"`
	Parts     []classifier.Part                     `json:"parts"`
	Samples   []Sample                              `json:"samples"`
}

// Sample is a payload packet, from the IP header on, with addresses zeroed.
type Sample struct {
	FromSrc bool   `json:"from_src"` // sent by the flow's src
	Length  int    `json:"length"`   // bytes on the wire
	Packet  string `json:"packet"`   // as far as it is known, in hexadecimal
}

// JSON returns the object that "-o json" prints.
func (p *Page) JSON() Object {
	why := Why{
		Samples:   []Sample{},
		Signature: p.Why.Signature, Catalogue: p.Why.Service, Asked: p.Why.Asked, Parts: p.Why.Parts,
		Models: map[flow.Task]string{}, Networks: map[flow.Task][]classifier.Likelihood{},
	}
	for t, opinion := range p.Why.Networks {
		if opinion.Top != nil {
			why.Models[flow.Task(t)], why.Networks[flow.Task(t)] = opinion.Model, opinion.Top
		}
	}
	for i := range p.Samples {
		s := &p.Samples[i]
		why.Samples = append(why.Samples, Sample{p.fromSrc(s), s.Length, hex.EncodeToString(masked(s.Packet))})
	}
	return Object{Record: p.Record, Why: why}
}

// fromSrc reports whether a sample was sent by the record's Src.
func (p *Page) fromSrc(s *flow.Sample) bool {
	_, srcIsA := flow.MakeKey(s.ID.Key.Proto, p.src(), p.dst(), s.ID.Key.VLAN)
	return s.FromA == srcIsA
}

// masked returns the packet with its addresses zeroed, as the networks read it.
func masked(packet []byte) []byte {
	out := append([]byte(nil), packet...)
	from, to := 12, 20
	if len(out) > 0 && out[0]>>4 == 6 {
		from, to = 8, 40
	}
	clear(out[min(from, len(out)):min(to, len(out))])
	return out
}
