// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyShowCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show IFACE",
		Short: "Show the policy in force and what its rules have done",
		Long: `Show the policy file in force and, for each rule, the packets and bytes that it has
acted on, and those that it has dropped or marked. -o json prints one object per rule.`,
		Example:           "  dpclass policy show eth0\n  dpclass policy show eth0 -o json",
		Args:              cli.Exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withInterface(g, args[0], func(iface *loader.Pins) error {
				p, stats, err := inForce(iface)
				if err != nil {
					return err
				}
				if g.JSON() {
					return cli.PrintJSON(cmd.OutOrStdout(), countedRules(p, stats)...)
				}
				return showPolicy(cmd.OutOrStdout(), args[0], p, stats)
			})
		},
	}
}

// inForce returns the policy of an interface, nil if it has none, and what its rules
// have done. It parses the policy file that the kernel keeps.
func inForce(iface *loader.Pins) (*flow.Policy, []loader.RuleStats, error) {
	applied, stats, err := iface.Rules().Policy()
	if err != nil || applied == nil {
		return nil, nil, err
	}
	apps, err := catalogueApps(&nameFiles{})
	if err != nil {
		return nil, nil, err
	}
	p, _, err := policy.Parse("policy in force", applied.Source, iface.Labels(), policy.WithApps(apps))
	if err != nil {
		return nil, nil, err
	}
	p.Applied, p.Flows = applied.Applied, applied.Flows
	return p, stats, nil
}

// countedRule is a rule with its counters, as "policy show -o json" prints it.
type countedRule struct {
	policy.RuleLine
	Counters *loader.RuleStats `json:"counters,omitempty"`
}

func countedRules(p *flow.Policy, stats []loader.RuleStats) []countedRule {
	if p == nil {
		return nil
	}
	var rules []countedRule
	for i, line := range policy.Lines(p) {
		rule := countedRule{RuleLine: line}
		if i < len(stats) {
			rule.Counters = &stats[i]
		}
		rules = append(rules, rule)
	}
	return rules
}

// showPolicy prints the file in force and the counters of its rules.
func showPolicy(out io.Writer, iface string, p *flow.Policy, stats []loader.RuleStats) error {
	if p == nil {
		_, err := fmt.Fprintf(out, "%s: no policy\n", iface)
		return err
	}
	counts := func(title string, cell func(loader.RuleStats) tui.Cell) tui.Column[int] {
		return tui.Column[int]{Title: title, Right: true, Cell: func(i int) tui.Cell {
			if i >= len(stats) {
				return tui.Cell{Text: "-", Style: tui.Dim}
			}
			return cell(stats[i])
		}}
	}
	columns := []tui.Column[int]{
		{Title: "#", Right: true, Cell: func(i int) tui.Cell { return tui.Cell{Text: fmt.Sprint(i + 1)} }},
		{Title: "MATCH", Cell: func(i int) tui.Cell { return tui.Cell{Text: policy.DescribeMatch(p.Rules[i])} }},
		{Title: "ACTION", Cell: func(i int) tui.Cell { return tui.Cell{Text: policy.SummariseAction(p.Rules[i].Action)} }},
		counts("PACKETS", func(s loader.RuleStats) tui.Cell { return tui.CountCell(s.Packets, tui.Plain) }),
		counts("BYTES", func(s loader.RuleStats) tui.Cell { return tui.Cell{Text: tui.Bytes(s.Bytes)} }),
		counts("DROPPED", func(s loader.RuleStats) tui.Cell { return tui.CountCell(s.Dropped, tui.Red) }),
		counts("MARKED", func(s loader.RuleStats) tui.Cell { return tui.CountCell(s.Marked, tui.Plain) }),
	}
	rows := make([]int, len(p.Rules))
	for i := range rows {
		rows[i] = i
	}
	lines := tui.Table(columns, rows, tui.WantColor(out), 0)
	if p.DropUnparsed {
		lines = append(lines, policy.DescribeUnparsed(p))
	}
	lines = append(lines, "never dropped or policed: "+strings.Join(policy.DescribeProtected(p), ", "))
	if !p.Applied.IsZero() {
		lines = append(lines, "applied "+p.Applied.Local().Format("2006-01-02 15:04:05"))
	}
	_, err := fmt.Fprintf(out, "%s\n\n%s\n", strings.TrimRight(string(p.Source), "\n"), strings.Join(lines, "\n"))
	return err
}
