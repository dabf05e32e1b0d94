// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dpclass/dpclass/flow"
)

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

// DescribeAction says what a rule does, with every default written out.
func DescribeAction(a flow.Action) string {
	if a.Drop {
		return "drop"
	}
	var parts []string
	if a.Rate > 0 {
		bucket := "one bucket for the rule and direction"
		if a.Scope == flow.ScopeFlow {
			bucket = "one bucket for each flow and direction"
		}
		parts = append(parts, fmt.Sprintf("police to %s, burst %s, %s", FormatRate(a.Rate), FormatSize(a.Burst), bucket))
	}
	if a.DSCP >= 0 {
		parts = append(parts, "mark DSCP "+FormatDSCP(a.DSCP))
	}
	if len(parts) == 0 {
		return "pass"
	}
	return strings.Join(parts, "; ")
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
