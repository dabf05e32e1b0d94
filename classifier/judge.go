// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/dpclass/dpclass/classifier/addressbook"
	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/classifier/wire"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// judge gives verdicts on all the evidence: what the packets say by themselves, and the
// networks. It is the same for live flows, for captures and for the evaluation.
type judge struct {
	*decider
	use    Evidence
	names  *names.Catalogue
	book   *addressbook.Book
	budget int // payload packets of a flow that are looked at, at least those that the networks read
}

// clues is what the packets of one flow have said so far.
type clues struct {
	wire     wire.Flow
	evidence flow.Evidence
	found    conclusion
	server   netip.AddrPort // receiver of the first packet: whose name to look for in the book
	seen     int            // payload packets
	inner    bool
}

// conclusion is what follows from the evidence without a network. It decides both tasks
// or none.
type conclusion struct {
	category, app             string // category "": a network decides both
	categorySource, appSource flow.Source
	sure                      bool // the next packets change neither label
	waiting                   bool // the next packets may say more, such as a name
}

// serviceOf identifies a service, for the comparison of names; "": not listed.
func serviceOf(catalogue *names.Catalogue) addressbook.Service {
	return func(name string) string {
		service, ok := catalogue.Lookup(name)
		if !ok {
			return ""
		}
		return service.App
	}
}

// add reads a sample. It reports whether the evidence or what follows from it changed.
func (j *judge) add(c *clues, s *flow.Sample) (changed bool) {
	if j.use == EvidenceModel {
		return false
	}
	c.seen++
	first := c.seen == 1
	c.inner = s.Inner
	p, reason := vector.Parse(s.Packet, s.Length)
	if reason != vector.OK || p.Captured <= 0 {
		return first
	}
	packet := wire.Packet{
		Proto: flow.Proto(p.Proto), FromA: s.FromA, SrcPort: p.Src.Port(), DstPort: p.Dst.Port(),
		Payload: s.Packet[p.Payload : p.Payload+p.Captured], Length: p.Length - p.Payload,
	}
	if packet.Proto == flow.TCP {
		packet.Seq = binary.BigEndian.Uint32(s.Packet[p.L4+4:])
	}
	c.wire.Add(&packet)
	before, conclusionBefore := c.evidence, c.found
	c.evidence = c.wire.Evidence()
	src, dst := s.ID.Key.B, s.ID.Key.A
	if s.FromA {
		src, dst = dst, src
	}
	j.name(c, before, s.ID.Key.Proto, src, dst, time.Unix(0, s.Time))
	c.found = j.conclude(c)
	return first || c.evidence != before || c.found != conclusionBefore
}

// name notes the flow's own server name in the address book, or looks for a name there.
// src and dst are the endpoints of the newest packet; the sender of a hello is the client.
func (j *judge) name(c *clues, before flow.Evidence, proto flow.Proto, src, dst netip.AddrPort, now time.Time) {
	if j.use != EvidenceAll {
		c.evidence.Name, c.evidence.NameSource = "", flow.NameNone
		return
	}
	if name := c.evidence.Name; name != "" {
		if name != before.Name {
			j.book.Saw(dst, proto, name, now)
		}
		return
	}
	if !c.server.IsValid() {
		c.server = dst
	}
	// A name that was found stays, unless the flow shows one of its own.
	if before.NameSource >= flow.NameDNS {
		c.evidence.Name, c.evidence.NameSource = before.Name, before.NameSource
		return
	}
	name, source := j.book.Lookup(c.server, proto, now)
	if name == "" && src != c.server {
		name, source = j.book.Lookup(src, proto, now)
	}
	c.evidence.Name, c.evidence.NameSource = name, source
}

// conclude says what follows from the evidence. A name of the flow's own comes before its
// protocol. A name that is itself a conclusion comes after it: SSH to a server whose
// address is that of a web site is still SSH.
func (j *judge) conclude(c *clues) conclusion {
	found := conclusion{sure: c.wire.Sure(), waiting: c.wire.Pending() && c.seen < j.budget}
	if j.own {
		found.waiting = false // nothing that comes can change a label
		return found
	}
	service, listed := j.names.Lookup(c.evidence.Name)
	strong := listed && service.Strength == names.Strong
	own := c.evidence.NameSource < flow.NameDNS
	protocol := c.evidence.Protocol.Category()
	switch {
	case strong && (own || protocol == ""):
		found.category, found.categorySource = service.Category, flow.SourceName
	case protocol != "":
		found.category, found.categorySource = protocol, flow.SourceProtocol
	default:
		return found
	}
	switch {
	case strong:
		found.app, found.appSource = service.App, flow.SourceName
	case c.evidence.Protocol.App() != "":
		found.app, found.appSource = c.evidence.Protocol.App(), flow.SourceProtocol
	}
	switch {
	case own && strong:
		found.sure = true
	case strong && protocol == "":
		// A name of the flow's own, which may still come, would come first.
		found.sure = false
	}
	return found
}

// prefixed reports whether a network must say if the flow is inside a VPN.
func (j *judge) prefixed(c *clues) bool {
	return c.inner && j.heads[flow.Category] != nil && slices.Contains(flow.Categories, inVPN(c.found.category))
}

func inVPN(category string) string { return "vpn-" + category }

// asksNetwork reports whether the networks can change anything.
func (j *judge) asksNetwork(c *clues) bool { return c.found.category == "" || j.prefixed(c) }

// verdicts returns the verdicts on a flow. a is what the networks said; it may be nil
// before they were asked. last says that no more samples come. settled reports whether
// nothing will change any more.
func (j *judge) verdicts(a *aggregate, c *clues, last bool) (v flow.Verdicts, settled bool) {
	waiting := c.found.waiting && !last
	if c.found.category == "" {
		if a == nil {
			return v, false
		}
		return j.decider.verdicts(a, last, waiting)
	}
	v[flow.Category] = flow.Verdict{
		Label: c.found.category, Confidence: 1, Source: c.found.categorySource, Final: c.found.sure || !waiting,
	}
	if j.prefixed(c) {
		inner, final := j.inner(a, last)
		if inner {
			v[flow.Category].Label = inVPN(c.found.category)
		}
		v[flow.Category].Final = v[flow.Category].Final && final
	}
	// Without an application there is a verdict too, an empty one: it replaces what the
	// network said before.
	v[flow.App] = flow.Verdict{
		Label: c.found.app, Confidence: 1, Source: c.found.appSource, Final: c.found.sure || !waiting,
	}
	if c.found.app == "" {
		v[flow.App].Confidence, v[flow.App].Source = 0, c.found.categorySource
	}
	return v, v.Final() && !waiting
}

// inner reports whether the network takes the flow for one inside a VPN, and whether that
// is final.
func (j *judge) inner(a *aggregate, last bool) (inner, final bool) {
	if a == nil || a.n == 0 {
		return false, last
	}
	h := j.heads[flow.Category]
	p := 0.0
	for i, share := range j.distribution(a, flow.Category) {
		if label := h.labels[i]; flow.IsVPN(label) && label != "vpn-tunnel" {
			p += share
		}
	}
	return p > .5, last || a.n >= j.samples || max(p, 1-p) >= h.final
}
