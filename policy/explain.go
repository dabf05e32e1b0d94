// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dpclass/dpclass/flow"
)

// Help describes the policy file for people.
const Help = `A policy file is YAML; the first rule that matches a flow wins:

  version: 1
  rules:
    - match: {category: voip}
      action: {dscp: EF}
    - match: {category: [streaming, vpn-streaming]}
      action: {rate: 20mbit, scope: class}
    - match: {app: torrent, min_confidence: 0.9}
      action: {drop: true}
  time_zone: Europe/Berlin
  unparsed: pass
  protect: [10.0.0.0/24, udp/51820]
  default: {pass: true}

` + matchHelp + actionHelp + `
unparsed: pass (the default) | drop: TCP and UDP packets that cannot be read, such
        as fragments that end within the TCP header
What protect names, the SSH connection that applies the policy, ARP, ND and ICMP
are never dropped or policed.`

// Explain writes the compiled policy as sentences for people.
func Explain(w io.Writer, p *flow.Policy) error {
	var out strings.Builder
	for i, rule := range p.Rules {
		paragraph(&out, fmt.Sprintf("%d. ", i+1), Sentence(rule))
	}
	if len(p.Rules) == 0 {
		paragraph(&out, "", "There are no rules: every packet passes unchanged.")
	} else {
		paragraph(&out, "", "Packets that no rule matches pass unchanged.")
	}
	if usesTime(p) {
		paragraph(&out, "", "Hours and days are those of the time zone "+DescribeZone(p)+".")
	}
	paragraph(&out, "", DescribeUnparsed(p))
	paragraph(&out, "", "Never dropped or policed: "+strings.Join(DescribeProtected(p), ", ")+".")
	_, err := io.WriteString(w, out.String())
	return err
}

// DescribeUnparsed says in a sentence what happens to packets that cannot be read.
func DescribeUnparsed(p *flow.Policy) string {
	if p.DropUnparsed {
		return "TCP and UDP packets that cannot be read are dropped, except from and to protected prefixes."
	}
	return "TCP and UDP packets that cannot be read pass."
}

// maxColumns is the width of sentences for people.
const maxColumns = 100

// paragraph writes words in lines of at most maxColumns, if no word is longer. The lines
// after the first one are indented by the width of the mark.
func paragraph(out *strings.Builder, mark, text string) {
	out.WriteString(mark)
	column := len(mark)
	for i, word := range strings.Fields(text) {
		width := utf8.RuneCountInString(word)
		if i > 0 && column+1+width > maxColumns {
			out.WriteString("\n" + strings.Repeat(" ", len(mark)))
			column = len(mark)
		} else if i > 0 {
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += width
	}
	out.WriteByte('\n')
}

// Sentence says in plain words which packets a rule acts on and what it does to them.
func Sentence(r flow.Rule) string {
	packets := "Packets"
	if r.Directions != nil {
		packets = "Packets sent to the network"
		if r.Directions[0] == flow.In {
			packets = "Packets received from the network"
		}
	}
	var clauses []string
	whose := func(what string, names []string) {
		if names != nil {
			clauses = append(clauses, "whose "+what+" is "+orList(names, maxListed))
		}
	}
	whose("category", r.Categories)
	whose("app", r.Apps)
	if r.Protocols != nil {
		whose("protocol", protocolNames(r.Protocols))
	}
	switch len(r.Names) {
	case 0:
	case 1:
		clauses = append(clauses, "whose server name is "+r.Names[0]+" or below")
	default:
		clauses = append(clauses, "whose server name is, or is below, "+orList(r.Names, maxListed))
	}
	if r.Hosts != nil {
		clauses = append(clauses, "that go from or to "+orList(hostNames(r.Hosts), maxListed))
	}
	if r.Ports != nil {
		var ports []string
		for _, port := range r.Ports {
			ports = append(ports, portWords(port))
		}
		clauses = append(clauses, "that use "+orList(ports, maxListed)+" at either end")
	}
	if r.Sources != nil {
		var words []string
		for _, source := range r.Sources {
			words = append(words, sourceWords[source])
		}
		clauses = append(clauses, "whose verdict comes from "+orList(words, maxListed))
	}
	if r.MinConfidence > 0 {
		clauses = append(clauses, "whose confidence is at least "+number(r.MinConfidence))
	}
	flows := "flows"
	switch {
	case len(clauses) == 0:
		flows = "all flows with a verdict"
	case !r.NeedsVerdict():
		flows = "flows, decided or not,"
	}
	if r.Provisional && r.NeedsVerdict() {
		clauses = append(clauses, "whose verdict is final or provisional")
	}
	if len(clauses) > 0 {
		flows += " "
	}
	action := DescribeAction(r.Action)
	if r.Schedule != nil {
		action = "only " + DescribeSchedule(r.Schedule) + ": " + action
	}
	if r.Action.Drop && r.Midstream {
		action += ", even if the beginning of the TCP connection was not seen"
	}
	if r.Action.Drop && r.OneSided {
		action += ", even if only one end of the TCP connection was seen"
	}
	return packets + " of " + flows + joined(clauses, "and") + ": " + action + "."
}

// maxListed bounds the items that a sentence lists.
const maxListed = 16

// orList joins items with commas and "or", and says how many it leaves out.
func orList(items []string, most int) string {
	if len(items) > most {
		items = append(slices.Clone(items[:most-1]), fmt.Sprintf("%d more", len(items)-most+1))
	}
	return joined(items, "or")
}

// joined joins items with commas and a word before the last one.
func joined(items []string, word string) string {
	if len(items) < 2 {
		return strings.Join(items, "")
	}
	last := len(items) - 1
	return strings.Join(items[:last], ", ") + " " + word + " " + items[last]
}

func number(value float64) string { return strconv.FormatFloat(value, 'f', -1, 64) }

// hostNames writes addresses without the length of a prefix.
func hostNames(hosts []netip.Prefix) []string {
	names := make([]string, len(hosts))
	for i, host := range hosts {
		names[i] = host.String()
		if host.IsSingleIP() {
			names[i] = host.Addr().String()
		}
	}
	return names
}

func portWords(r flow.PortRange) string {
	words := "port " + strconv.Itoa(int(r.First))
	if r.Last != r.First {
		words = fmt.Sprintf("ports %d to %d", r.First, r.Last)
	}
	if r.Proto != 0 {
		words = strings.ToUpper(r.Proto.String()) + " " + words
	}
	return words
}

// maxInTable bounds the items of a match in a table.
const maxInTable = 6

// DescribeMatch says in short which packets a rule acts on.
func DescribeMatch(r flow.Rule) string {
	line := ruleLine(0, r)
	var parts []string
	for _, match := range []struct {
		key  string
		list []string
	}{
		{"category", line.Category},
		{"app", line.App},
		{"protocol", line.Protocol},
		{"name", line.Name},
		{"host", line.Host},
		{"port", line.Port},
		{"direction", line.Direction},
		{"source", line.Source},
	} {
		list := match.list
		if match.key != "category" && len(list) > maxInTable {
			list = append(slices.Clone(list[:maxInTable-1]), fmt.Sprintf("%d more", len(list)-maxInTable+1))
		}
		if list != nil {
			parts = append(parts, match.key+" "+strings.Join(list, "|"))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "every decided flow")
	}
	if r.MinConfidence > 0 {
		parts = append(parts, "confidence >= "+number(r.MinConfidence))
	}
	if r.Provisional {
		parts = append(parts, "provisional too")
	}
	if r.Midstream {
		parts = append(parts, "midstream too")
	}
	if r.OneSided {
		parts = append(parts, "one-sided too")
	}
	if r.Schedule != nil {
		parts = append(parts, "only "+DescribeSchedule(r.Schedule))
	}
	return strings.Join(parts, ", ")
}

// RuleLine is a compiled rule as JSON. A match that the rule does not have is left out.
type RuleLine struct {
	Rule          int      `json:"rule"` // number in the policy, from 1
	Category      []string `json:"category,omitempty"`
	App           []string `json:"app,omitempty"`
	Protocol      []string `json:"protocol,omitempty"`
	Name          []string `json:"name,omitempty"`
	Host          []string `json:"host,omitempty"` // addresses and prefixes
	Port          []string `json:"port,omitempty"` // as in the policy file: "443", "udp/5000-5100"
	Direction     []string `json:"direction,omitempty"`
	Source        []string `json:"source,omitempty"`
	MinConfidence float64  `json:"min_confidence"`
	Final         bool     `json:"final"` // false: the rule acts on provisional verdicts too
	Midstream     bool     `json:"midstream"`
	OneSided      bool     `json:"one_sided"`
	Schedule      string   `json:"schedule,omitempty"` // when the rule acts, if not always
	ActionLine
	Sentence string `json:"sentence"` // the rule in plain words
}

// Lines returns the rules of a policy for JSON.
func Lines(p *flow.Policy) []RuleLine {
	lines := make([]RuleLine, len(p.Rules))
	for i, r := range p.Rules {
		lines[i] = ruleLine(i+1, r)
		lines[i].Sentence = Sentence(r)
	}
	return lines
}

// ruleLine returns a rule for JSON, without its sentence.
func ruleLine(n int, r flow.Rule) RuleLine {
	line := RuleLine{
		Rule: n, Category: r.Categories, App: r.Apps, Name: r.Names, MinConfidence: r.MinConfidence,
		Final: !r.Provisional, Midstream: r.Midstream, OneSided: r.OneSided, ActionLine: actionLine(r.Action),
	}
	if r.Schedule != nil {
		line.Schedule = DescribeSchedule(r.Schedule)
	}
	if r.Protocols != nil {
		line.Protocol = protocolNames(r.Protocols)
	}
	if r.Hosts != nil {
		line.Host = hostNames(r.Hosts)
	}
	for _, port := range r.Ports {
		line.Port = append(line.Port, formatPort(port))
	}
	for _, direction := range r.Directions {
		line.Direction = append(line.Direction, direction.String())
	}
	for _, source := range r.Sources {
		line.Source = append(line.Source, source.String())
	}
	return line
}

// DescribeProtected lists what the policy never drops or polices.
func DescribeProtected(p *flow.Policy) []string {
	names := []string{"ARP", "ND", "ICMP"}
	for _, prefix := range p.Prefixes {
		names = append(names, prefix.String())
	}
	for _, port := range p.Ports {
		names = append(names, fmt.Sprintf("%s/%d", port.Proto, port.Port))
	}
	for _, key := range p.Flows {
		names = append(names, key.String())
	}
	return names
}
