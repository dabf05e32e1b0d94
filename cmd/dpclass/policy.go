// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyCommand(g *cli.Globals) *cobra.Command {
	cmd := cli.Group("policy", "Apply, show, clear or check a policy", policy.Help,
		"  dpclass policy check policy.yaml\n  dpclass policy apply eth0 policy.yaml\n  dpclass policy show eth0\n  dpclass policy clear eth0")
	cmd.AddCommand(newPolicyApplyCommand(g), newPolicyShowCommand(g), newPolicyClearCommand(g), newPolicyCheckCommand(g))
	return cmd
}

func newPolicyApplyCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "apply IFACE FILE",
		Short: "Enforce a policy on an attached interface",
		Long: `Check the policy file and enforce it on the interface instead of the policy that is
there now. A file with an error changes nothing. "-" reads standard input. The SSH
connection that applies the policy is protected.`,
		Example:           "  dpclass policy apply eth0 policy.yaml\n  sed s/20mbit/5mbit/ policy.yaml | dpclass policy apply eth0 -",
		Args:              cli.Exactly("IFACE", "FILE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withInterface(g, args[0], func(iface *loader.Pins) error {
				p, err := readPolicy(cmd, args[1], iface.Labels())
				if err != nil {
					return err
				}
				protectSSH(p)
				if err := iface.Rules().Set(p); err != nil {
					return fmt.Errorf("policy on %q: %w", args[0], err)
				}
				if g.JSON() {
					return nil
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: policy in force, %d rules\n", args[0], len(p.Rules))
				return err
			})
		},
	}
}

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

func newPolicyClearCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "clear IFACE",
		Short: "Remove the policy: every packet passes unchanged",
		Long: `Remove the policy from the interface, so that every packet passes unchanged. It is
not an error if there is none.`,
		Example:           "  dpclass policy clear eth0",
		Args:              cli.Exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withInterface(g, args[0], func(iface *loader.Pins) error {
				if err := iface.Rules().Clear(); err != nil {
					return err
				}
				if g.JSON() {
					return nil
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no policy\n", args[0])
				return err
			})
		},
	}
}

func newPolicyCheckCommand(g *cli.Globals) *cobra.Command {
	var models []string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a policy file and explain it",
		Long: `Check a policy file and print what its rules do, with every default and unit
written out. It changes nothing and needs no privileges. The exit code is 0 if the
file can be applied. To use the labels of your own models, name them with --model.

` + policy.Help,
		Example: "  dpclass policy check policy.yaml\n  dpclass policy check policy.yaml --model ./mine.onnx -o json",
		Args:    cli.Exactly("FILE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completePolicyFiles(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := modelLabels(models)
			if err != nil {
				return err
			}
			p, err := readPolicy(cmd, args[0], labels)
			if err != nil {
				return err
			}
			if g.JSON() {
				return cli.PrintJSON(cmd.OutOrStdout(), policy.Lines(p)...)
			}
			return policy.Explain(cmd.OutOrStdout(), p)
		},
	}
	cmd.Flags().StringArrayVar(&models, "model", nil, "model whose labels the policy may use: `NAME` or FILE.onnx (default: the choice of \"dpclass models use\")")
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}

// modelLabels returns the labels that models add. Without names it is not an error if
// the chosen models cannot be read: most policies use none of their labels.
func modelLabels(names []string) ([]string, error) {
	models, err := loadModels(names)
	if err != nil {
		if len(names) == 0 {
			return nil, nil
		}
		return nil, err
	}
	return model.NewLabels(models), nil
}

// inForce returns the policy of an interface, nil if it has none, and what its rules
// have done. It parses the policy file that the kernel keeps.
func inForce(iface *loader.Pins) (*flow.Policy, []loader.RuleStats, error) {
	applied, stats, err := iface.Rules().Policy()
	if err != nil || applied == nil {
		return nil, nil, err
	}
	p, _, err := policy.Parse("policy in force", applied.Source, iface.Labels())
	if err != nil {
		return nil, nil, err
	}
	p.Applied = applied.Applied
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
		{Title: "ACTION", Cell: func(i int) tui.Cell { return tui.Cell{Text: policy.DescribeAction(p.Rules[i].Action)} }},
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
	lines = append(lines, "never dropped or policed: "+strings.Join(policy.DescribeProtected(p), ", "))
	if !p.Applied.IsZero() {
		lines = append(lines, "applied "+p.Applied.Local().Format("2006-01-02 15:04:05"))
	}
	_, err := fmt.Fprintf(out, "%s\n\n%s\n", strings.TrimRight(string(p.Source), "\n"), strings.Join(lines, "\n"))
	return err
}
