// SPDX-License-Identifier: Apache-2.0

package explanation

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
)

const (
	partsShown = 8   // parts that the text lists
	bytesShown = 192 // of a sample
	perLine    = 16
	noEffect   = 0.005 // smaller effects on a probability are not shown
)

func (p *Page) src() netip.AddrPort { return netip.AddrPortFrom(p.Record.Src, p.Record.SrcPort) }
func (p *Page) dst() netip.AddrPort { return netip.AddrPortFrom(p.Record.Dst, p.Record.DstPort) }

// Text returns the page as lines.
func (p *Page) Text(color bool) []string {
	r := p.Record
	lines := []string{tui.Paint(fmt.Sprintf("%s %s -> %s", r.Proto, p.src(), p.dst()), tui.Bold, color), ""}
	row := func(title, text string) {
		lines = append(lines, tui.Paint(fmt.Sprintf("%-10s", title), tui.Dim, color)+tui.Printable(text))
	}
	row("category", p.verdict(r.Category, r.CategorySource, r.CategoryConfidence, r.CategoryFinal))
	row("app", p.verdict(r.App, r.AppSource, r.AppConfidence, r.AppFinal))
	if r.Protocol == "" {
		row("protocol", "not recognised")
	} else {
		row("protocol", r.Protocol+p.signature())
	}
	row("name", p.name())
	if r.Process != "" {
		row("process", r.Process)
	}
	if r.ALPN != "" {
		row("alpn", r.ALPN)
	}
	if r.JA4 != "" {
		row("ja4", r.JA4)
	}
	asked := "what the network says:"
	if !p.Why.Asked {
		asked = "the network had no part in the verdict; it would have said:"
	}
	if p.Why.Networks[flow.Category].Top == nil && p.Why.Networks[flow.App].Top == nil {
		row("network", "not run: no payload packet of this flow is kept")
		return lines
	}
	row("network", asked)
	for t, opinion := range p.Why.Networks {
		if opinion.Top != nil {
			row("", fmt.Sprintf("%-9s %s (model %s)", flow.Task(t), likelihoods(opinion.Top), opinion.Model))
		}
	}
	return append(lines, p.parts(color)...)
}

func (p *Page) verdict(label, source string, confidence float64, final bool) string {
	if label == "" {
		return "-"
	}
	text := label
	switch source {
	case flow.SourceModel.String():
		text += fmt.Sprintf("  by the network, %.0f %%", confidence*100)
	case flow.SourceOperator.String():
		text += "  by the operator"
	case flow.SourceName.String(), flow.SourceProtocol.String():
		text += "  by its " + source
	}
	if !final {
		text += ", provisional"
	}
	return text
}

func (p *Page) signature() string {
	if p.Why.Signature != "" {
		return ": " + p.Why.Signature
	}
	if protocol, ok := flow.ParseProtocol(p.Record.Protocol); ok {
		return ": " + protocol.Source()
	}
	return ""
}

// sourceOfName says where a server name comes from.
var sourceOfName = map[string]string{
	flow.NameTLS.String():    "from the TLS hello",
	flow.NameQUIC.String():   "from the hello in the QUIC Initial packets",
	flow.NameHTTP.String():   "from the HTTP request",
	flow.NameDNS.String():    "a DNS answer gave the server's address for it",
	flow.NameServer.String(): "an earlier flow to the same server had it",
}

func (p *Page) name() string {
	r, s := p.Record, p.Why.Service
	if r.Name == "" {
		return "none"
	}
	text := fmt.Sprintf("%q, %s", r.Name, cmp.Or(sourceOfName[r.NameSource], r.NameSource))
	switch {
	case r.Name == flow.HiddenName:
		return "hidden: the client encrypted it (ECH)"
	case s == nil:
		return text + "; not in the catalogue"
	}
	return text + fmt.Sprintf("; catalogue %s, line %d: %s is %s, %s, %s", s.File, s.Line, s.Suffix, s.App, s.Category, s.Strength)
}

func likelihoods(top []classifier.Likelihood) string {
	var parts []string
	for _, l := range top {
		parts = append(parts, fmt.Sprintf("%s %.0f %%", l.Label, l.Probability*100))
	}
	return strings.Join(parts, ", ")
}

// parts returns the parts that moved the network most, and the bytes of their samples.
func (p *Page) parts(color bool) []string {
	opinion := p.Why.Networks[flow.Category]
	if opinion.Top == nil {
		opinion = p.Why.Networks[flow.App]
	}
	var shown []classifier.Part
	samples := map[int]bool{}
	for _, part := range p.Why.Parts {
		if len(shown) < partsShown && (part.Effect > noEffect || part.Effect < -noEffect) {
			shown = append(shown, part)
			samples[part.Sample] = true
		}
	}
	if len(shown) == 0 {
		return []string{"", "No single part of the packets moves the network."}
	}
	lines := []string{"", fmt.Sprintf("Change of the probability of %q if these bytes are zero:", opinion.Top[0].Label)}
	lines = append(lines, tui.Table([]tui.Column[classifier.Part]{
		{Title: "CHANGE", Right: true, Cell: func(part classifier.Part) tui.Cell {
			return tui.Cell{Text: fmt.Sprintf("%+.0f %%", -part.Effect*100), Style: effectStyle(part.Effect)}
		}},
		{Title: "PACKET", Right: true, Cell: func(part classifier.Part) tui.Cell { return tui.Cell{Text: fmt.Sprint(part.Sample + 1)} }},
		{Title: "BYTES", Cell: func(part classifier.Part) tui.Cell {
			return tui.Cell{Text: fmt.Sprintf("%d-%d", part.Offset, part.Offset+part.Length-1)}
		}},
		{Title: "PART", Cell: func(part classifier.Part) tui.Cell { return tui.Cell{Text: part.Name} }},
	}, shown, color, 0)...)
	for i := range p.Samples {
		if samples[i] {
			lines = append(lines, p.hex(i, color)...)
		}
	}
	return lines
}

// effectStyle paints what speaks for the label green, and what speaks against it red.
func effectStyle(effect float64) tui.Style {
	switch {
	case effect > noEffect:
		return tui.Green
	case effect < -noEffect:
		return tui.Red
	}
	return tui.Plain
}

// hex returns the bytes of a sample. Bytes that move the network have a colour.
func (p *Page) hex(i int, color bool) []string {
	s := &p.Samples[i]
	from := p.src()
	if !p.fromSrc(s) {
		from = p.dst()
	}
	packet := masked(s.Packet)
	styles := make([]tui.Style, len(packet))
	for _, part := range p.Why.Parts {
		if part.Sample != i {
			continue
		}
		for at := part.Offset; at < min(part.Offset+part.Length, len(packet)); at++ {
			styles[at] = effectStyle(part.Effect)
		}
	}
	lines := []string{"", fmt.Sprintf("Packet %d, %d bytes from %s; addresses are zeroed", i+1, s.Length, from)}
	shown := min(len(packet), bytesShown)
	for at := 0; at < shown; at += perLine {
		var bytes, text strings.Builder
		for k := at; k < at+perLine; k++ {
			if k == at+perLine/2 {
				bytes.WriteByte(' ')
			}
			if k >= shown {
				bytes.WriteString("   ")
				continue
			}
			bytes.WriteString(tui.Paint(fmt.Sprintf("%02x ", packet[k]), styles[k], color))
			char := "."
			if packet[k] >= ' ' && packet[k] < 0x7f {
				char = string(rune(packet[k]))
			}
			text.WriteString(tui.Paint(char, styles[k], color))
		}
		lines = append(lines, fmt.Sprintf("  %04x  %s %s", at, bytes.String(), text.String()))
	}
	if more := s.Length - shown; more > 0 {
		lines = append(lines, tui.Paint(fmt.Sprintf("        %d more bytes", more), tui.Dim, color))
	}
	return lines
}
