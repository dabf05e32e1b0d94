// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"io"
	"strconv"
	"strings"

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
  protect: [10.0.0.0/24, udp/51820]
  default: {pass: true}

match:  category and app (a label or a list of labels), vpn: true|false,
        min_confidence, final: false (act on provisional verdicts too),
        midstream: true (let a drop act on TCP connections whose beginning was
        not seen)
` + actionHelp + `
What protect names, the SSH connection that applies the policy, ARP, ND and ICMP
are never dropped or policed.`

// Explain writes the compiled policy as a table for people.
func Explain(w io.Writer, p *flow.Policy) error {
	rows := [][2]string{{"MATCH", "ACTION"}}
	for _, rule := range p.Rules {
		rows = append(rows, [2]string{DescribeMatch(rule), DescribeAction(rule.Action)})
	}
	rows = append(rows, [2]string{"everything else", "pass"})
	width := 0
	for _, row := range rows {
		width = max(width, len([]rune(row[0])))
	}
	var out strings.Builder
	for i, row := range rows {
		number := strconv.Itoa(i)
		switch i {
		case 0:
			number = "#"
		case len(rows) - 1:
			number = "-"
		}
		fmt.Fprintf(&out, "%3s  %-*s  %s\n", number, width, row[0], row[1])
	}
	fmt.Fprintf(&out, "never dropped or policed: %s\n", strings.Join(DescribeProtected(p), ", "))
	_, err := io.WriteString(w, out.String())
	return err
}

// DescribeMatch says which flows a rule acts on.
func DescribeMatch(r flow.Rule) string {
	var parts []string
	if r.Categories != nil {
		parts = append(parts, "category "+strings.Join(r.Categories, "|"))
	}
	if r.Apps != nil {
		parts = append(parts, "app "+strings.Join(r.Apps, "|"))
	}
	if len(parts) == 0 {
		parts = append(parts, "every decided flow")
	}
	if r.MinConfidence > 0 {
		parts = append(parts, "confidence >= "+strconv.FormatFloat(r.MinConfidence, 'f', -1, 64))
	}
	if r.Provisional {
		parts = append(parts, "provisional too")
	}
	if r.Midstream {
		parts = append(parts, "midstream too")
	}
	return strings.Join(parts, ", ")
}

// RuleLine is a compiled rule as JSON.
type RuleLine struct {
	Rule          int      `json:"rule"` // number in the policy, from 1
	Category      []string `json:"category,omitempty"`
	App           []string `json:"app,omitempty"`
	MinConfidence float64  `json:"min_confidence"`
	Final         bool     `json:"final"` // false: the rule acts on provisional verdicts too
	Midstream     bool     `json:"midstream"`
	ActionLine
}

// Lines returns the rules of a policy for JSON.
func Lines(p *flow.Policy) []RuleLine {
	lines := make([]RuleLine, len(p.Rules))
	for i, r := range p.Rules {
		lines[i] = RuleLine{
			Rule: i + 1, Category: r.Categories, App: r.Apps, MinConfidence: r.MinConfidence,
			Final: !r.Provisional, Midstream: r.Midstream, ActionLine: actionLine(r.Action),
		}
	}
	return lines
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
