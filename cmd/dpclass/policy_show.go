// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

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
acted on, and those that it has dropped or marked; by category of the flow and by DSCP, if there
are several; and how far hosts are with quotas. -o json prints one object per rule.`,
		Example:           "  dpclass policy show eth0\n  dpclass policy show eth0 -o json",
		Args:              cli.Exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withInterface(g, args[0], func(iface *loader.Pins) error {
				apps, err := catalogueApps(&nameFiles{})
				if err != nil {
					return err
				}
				shown, err := inForce(iface, apps)
				if err != nil {
					return err
				}
				if g.JSON() {
					return cli.PrintJSON(cmd.OutOrStdout(), shown.lines()...)
				}
				return shown.print(cmd.OutOrStdout(), args[0])
			})
		},
	}
}

// shownPolicy is a policy in force and what it has done. Policy is nil if there is none.
type shownPolicy struct {
	policy *flow.Policy
	number uint32 // see loader.Report
	rules  []loader.RuleReport
	until  time.Time                // when it is taken back; zero: it is not
	hosts  map[int][]loader.HostUse // index of a rule with a quota to its hosts
	former *flow.Policy             // what comes back then; nil: no policy
}

// inForce returns the policy of an interface and what its rules have done. It parses the
// policy file that the kernel keeps; apps are those of [knownApps].
func inForce(iface *loader.Pins, apps []string) (*shownPolicy, error) {
	report, err := iface.Rules().Report()
	if err != nil || report == nil {
		return &shownPolicy{}, err
	}
	p, err := parseApplied(iface, report.Policy, apps)
	if err != nil {
		return nil, err
	}
	shown := &shownPolicy{policy: p, number: report.Number, rules: report.Rules, until: report.ConfirmBy, hosts: map[int][]loader.HostUse{}}
	if report.Former != nil {
		if shown.former, err = parseApplied(iface, report.Former, apps); err != nil {
			return nil, err
		}
	}
	for n := range p.Rules {
		if p.Rules[n].Action.Quota == 0 {
			continue
		}
		if shown.hosts[n], err = iface.Rules().Hosts(n + 1); err != nil {
			return nil, err
		}
	}
	return shown, nil
}

// parseApplied parses the text of a policy that was applied.
func parseApplied(iface *loader.Pins, applied *flow.Policy, apps []string) (*flow.Policy, error) {
	p, _, err := policy.Parse("policy in force", applied.Source, iface.Labels(), policy.WithApps(apps))
	if err != nil {
		return nil, err
	}
	p.Applied, p.Flows, p.DryRun = applied.Applied, applied.Flows, applied.DryRun
	return p, nil
}

// countedRule is a rule with its counters, as "policy show -o json" prints it.
type countedRule struct {
	policy.RuleLine
	DryRun    bool              `json:"dry_run"`              // the counters say what the rule would have done
	Resting   bool              `json:"resting,omitempty"`    // by its schedule, the rule does not act now
	ConfirmBy *time.Time        `json:"confirm_by,omitempty"` // then the policy is taken back
	Counters  *loader.RuleStats `json:"counters,omitempty"`
	Category  map[string]uint64 `json:"packets_by_category,omitempty"`
	DSCP      map[string]uint64 `json:"packets_by_dscp,omitempty"` // by the DSCP with which they went on
	Quota     *quotaLine        `json:"quota,omitempty"`
}

// quotaLine says how far hosts are with their quota today.
type quotaLine struct {
	Hosts  int        `json:"hosts"`
	Beyond int        `json:"beyond"` // hosts that have used it up
	Most   []hostLine `json:"most"`   // those that have used most, at most mostHosts
}

type hostLine struct {
	Host  string `json:"host"`
	Bytes uint64 `json:"bytes"`
}

const mostHosts = 100

// undecidedPackets is the category of packets that a rule acted on before a verdict.
const undecidedPackets = "undecided"

func (s *shownPolicy) lines() (rules []countedRule) {
	if s.policy == nil {
		return nil
	}
	for i, line := range policy.Lines(s.policy) {
		rule := countedRule{RuleLine: line, DryRun: s.policy.DryRun}
		if !s.until.IsZero() {
			until := s.until.UTC()
			rule.ConfirmBy = &until
		}
		if i < len(s.rules) {
			r := &s.rules[i]
			rule.Counters, rule.Resting, rule.Category, rule.DSCP = &r.RuleStats, r.Rests, map[string]uint64{}, map[string]uint64{}
			for category, packets := range r.Categories {
				if category == "" {
					category = undecidedPackets
				}
				rule.Category[category] = packets
			}
			for dscp, packets := range r.DSCPs {
				rule.DSCP[strconv.Itoa(dscp)] = packets
			}
		}
		if hosts, ok := s.hosts[i]; ok {
			rule.Quota = quotaOf(hosts, s.policy.Rules[i].Action.Quota)
		}
		rules = append(rules, rule)
	}
	return rules
}

func quotaOf(hosts []loader.HostUse, quota uint64) *quotaLine {
	line := &quotaLine{Hosts: len(hosts), Most: []hostLine{}}
	for n, host := range hosts {
		if host.Bytes > quota {
			line.Beyond++
		}
		if n < mostHosts {
			name := host.Host.String()
			if host.Host.IsSingleIP() {
				name = host.Host.Addr().String()
			}
			line.Most = append(line.Most, hostLine{name, host.Bytes})
		}
	}
	return line
}

// print prints the file in force and the counters of its rules.
func (s *shownPolicy) print(out io.Writer, iface string) error {
	p, stats := s.policy, s.rules
	if p == nil {
		_, err := fmt.Fprintf(out, "%s: no policy\n", iface)
		return err
	}
	counts := func(title string, cell func(*loader.RuleReport) tui.Cell) tui.Column[int] {
		return tui.Column[int]{Title: title, Right: true, Cell: func(i int) tui.Cell {
			if i >= len(stats) {
				return tui.Cell{Text: "-", Style: tui.Dim}
			}
			return cell(&stats[i])
		}}
	}
	columns := []tui.Column[int]{
		{Title: "#", Right: true, Cell: func(i int) tui.Cell { return tui.Cell{Text: fmt.Sprint(i + 1)} }},
		{Title: "MATCH", Cell: func(i int) tui.Cell { return tui.Cell{Text: policy.DescribeMatch(p.Rules[i])} }},
		{Title: "ACTION", Cell: func(i int) tui.Cell { return tui.Cell{Text: policy.SummariseAction(p.Rules[i].Action)} }},
		counts("PACKETS", func(s *loader.RuleReport) tui.Cell { return tui.CountCell(s.Packets, tui.Plain) }),
		counts("BYTES", func(s *loader.RuleReport) tui.Cell { return tui.Cell{Text: tui.Bytes(s.Bytes)} }),
		counts("DROPPED", func(s *loader.RuleReport) tui.Cell { return tui.CountCell(s.Dropped, tui.Red) }),
		counts("MARKED", func(s *loader.RuleReport) tui.Cell { return tui.CountCell(s.Marked, tui.Plain) }),
	}
	rows := make([]int, len(p.Rules))
	for i := range rows {
		rows[i] = i
	}
	lines := tui.Table(columns, rows, tui.WantColor(out), 0)
	lines = append(lines, s.details()...)
	if p.DropUnparsed {
		lines = append(lines, policy.DescribeUnparsed(p))
	}
	lines = append(lines, "never dropped or policed: "+strings.Join(policy.DescribeProtected(p), ", "))
	if !p.Applied.IsZero() {
		lines = append(lines, "applied "+p.Applied.Local().Format("2006-01-02 15:04:05"))
	}
	if p.DryRun {
		lines = append(lines, "dry run: DROPPED and MARKED count what the rules would have done; nothing was dropped, policed or marked")
	}
	if !s.until.IsZero() {
		former := "no policy"
		if s.former != nil {
			former = fmt.Sprintf("the policy before, with %d rules,", len(s.former.Rules))
		}
		lines = append(lines, fmt.Sprintf("not confirmed: at %s %s comes back; to keep this one: dpclass policy confirm %s",
			s.until.Local().Format("15:04:05"), former, iface))
	}
	_, err := fmt.Fprintf(out, "%s\n\n%s\n", tui.PrintableLines(strings.TrimRight(string(p.Source), "\n")), strings.Join(lines, "\n"))
	return err
}

// details says in lines what rules have done by category and DSCP, and how far quotas are.
func (s *shownPolicy) details() (lines []string) {
	for _, rule := range s.lines() {
		what := func(title string, text string) {
			lines = append(lines, fmt.Sprintf("rule %d, %s: %s", rule.Rule, title, text))
		}
		if rule.Resting {
			what("schedule", "rests now")
		}
		if len(rule.Category) > 1 {
			what("packets by category", listed(rule.Category))
		}
		if len(rule.DSCP) > 0 {
			what("packets by DSCP", listed(rule.DSCP))
		}
		if q := rule.Quota; q != nil {
			text := fmt.Sprintf("%d hosts today, %d beyond it", q.Hosts, q.Beyond)
			for n, host := range q.Most[:min(len(q.Most), shownHosts)] {
				if text += ", "; n == 0 {
					text += "most: "
				}
				text += host.Host + " " + tui.Bytes(host.Bytes)
			}
			what("quota", text)
		}
	}
	return lines
}

const shownHosts = 5

// listed writes counts, the largest first.
func listed(counts map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	for n, name := range names {
		names[n] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names, ", ")
}
