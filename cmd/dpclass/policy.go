// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

const policyHelp = `A policy file is YAML; the first rule that matches a flow wins:

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

match:  category and app (a label or a list), vpn: true|false, min_confidence,
        final: false (act on provisional verdicts too), midstream: true (let a
        drop act on TCP connections whose beginning was not seen)
action: drop: true | pass: true | rate and/or dscp; rate has scope: class (one
        bucket for the rule and direction) or flow (one for each flow and
        direction), and burst (default: rate x 250 ms, at least 128 kB)
Units are those of tc(8): mbit is 10^6 bits a second, mbps 10^6 bytes; sizes are
powers of 1024. A DSCP is CS0 to CS7, AF11 to AF43, EF, VA, LE or 0 to 63.
What protect names, the SSH connection that applies the policy, ARP, ND and ICMP
are never dropped or policed.`

func newPolicyCommand(g *globals) *cobra.Command {
	cmd := newGroupCommand("policy", "Apply, show, clear or check a policy", policyHelp,
		"  dpclass policy check policy.yaml\n  dpclass policy apply eth0 policy.yaml\n  dpclass policy show eth0\n  dpclass policy clear eth0")
	cmd.AddCommand(newPolicyApplyCommand(g), newPolicyShowCommand(g), newPolicyClearCommand(g), newPolicyCheckCommand(g))
	return cmd
}

func newPolicyApplyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "apply IFACE FILE",
		Short: "Enforce a policy on an attached interface",
		Long: `Check the policy file and put it in force on the interface, in place of the one
there: the whole of it or, where something is wrong, nothing. "-" reads standard
input. The SSH connection that applies it is protected.`,
		Example:           "  dpclass policy apply eth0 policy.yaml\n  sed s/20mbit/5mbit/ policy.yaml | dpclass policy apply eth0 -",
		Args:              exactly("IFACE", "FILE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withInterface(args[0], func(iface *loader.Interface) error {
				p, err := readPolicy(args[1], cmd.InOrStdin(), iface.Labels(), cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				protectSSH(p)
				if err := iface.SetPolicy(p); err != nil {
					return fmt.Errorf("policy on %q: %w", args[0], err)
				}
				if g.json() {
					return nil
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: policy in force, %d rules\n", args[0], len(p.Rules))
				return err
			})
		},
	}
}

func newPolicyShowCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show IFACE",
		Short: "Show the policy in force and what its rules did",
		Long: `Show the policy file in force and, for each rule, the packets and bytes that it
acted on, and those that it dropped or marked. -o json prints one object a rule.`,
		Example:           "  dpclass policy show eth0\n  dpclass policy show eth0 -o json",
		Args:              exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withInterface(args[0], func(iface *loader.Interface) error {
				p, stats, err := inForce(iface)
				if err != nil {
					return err
				}
				if g.json() {
					return printRules(cmd.OutOrStdout(), p, stats)
				}
				return showPolicy(cmd.OutOrStdout(), args[0], p, stats)
			})
		},
	}
}

func newPolicyClearCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "clear IFACE",
		Short: "Remove the policy: every packet passes unchanged",
		Long: `Remove the policy from the interface: from then on every packet passes unchanged.
It is no error where there is none.`,
		Example:           "  dpclass policy clear eth0",
		Args:              exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withInterface(args[0], func(iface *loader.Interface) error {
				if err := iface.ClearPolicy(); err != nil {
					return err
				}
				if g.json() {
					return nil
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no policy\n", args[0])
				return err
			})
		},
	}
}

func newPolicyCheckCommand(g *globals) *cobra.Command {
	var models []string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a policy file and explain it",
		Long: `Check a policy file and print what its rules come to, with the units worked out.
Nothing is changed and no privileges are needed. The exit code is 0 where it can
be applied. Labels of your own models are known where --model names them.

` + policyHelp,
		Example: "  dpclass policy check policy.yaml\n  dpclass policy check policy.yaml --model ./mine.onnx -o json",
		Args:    exactly("FILE"),
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
			p, err := readPolicy(args[0], cmd.InOrStdin(), labels, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if g.json() {
				return printRules(cmd.OutOrStdout(), p, nil)
			}
			return policy.Explain(cmd.OutOrStdout(), p)
		},
	}
	cmd.Flags().StringArrayVar(&models, "model", nil, "model whose labels are known: `NAME` or FILE.onnx (default: the choice of \"dpclass models use\")")
	mustCompleteFunc(cmd, "model", completeModels)
	return cmd
}

// modelLabels returns the labels that models add. Where none is named, it is no
// error that the chosen ones cannot be read: most policies need none of theirs.
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

// policyLimit is more than a policy file may have: the rest is not read.
const policyLimit = 1 << 20

// readPolicy reads and checks a policy file, or standard input for "-", and
// prints its warnings.
func readPolicy(file string, in io.Reader, labels []string, warn io.Writer) (p *flow.Policy, err error) {
	name := file
	if file == "-" {
		name = "standard input"
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("policy file %q: %w", file, pathReason(err))
		}
		defer opened.Close() // nothing is written to it
		in = opened
	}
	data, err := io.ReadAll(io.LimitReader(in, policyLimit))
	if err != nil {
		return nil, fmt.Errorf("policy file %q: %w", file, pathReason(err))
	}
	p, warnings, err := policy.Parse(name, data, labels)
	if err != nil {
		return nil, err
	}
	for _, warning := range warnings {
		if _, err := fmt.Fprintf(warn, "warning: %s\n", warning); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// protectSSH protects the SSH connection that this process was started over.
func protectSSH(p *flow.Policy) {
	if key, ok := sshFlow(os.Getenv("SSH_CONNECTION")); ok {
		p.Flows = append(p.Flows, key)
	}
}

// pathReason takes the path out of an error whose message has it already.
func pathReason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// sshFlow reads $SSH_CONNECTION: client address and port, server address and port.
func sshFlow(text string) (flow.Key, bool) {
	words := strings.Fields(text)
	if len(words) != 4 {
		return flow.Key{}, false
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(words[2*i])
		if err != nil {
			return flow.Key{}, false
		}
		port, err := strconv.ParseUint(words[2*i+1], 10, 16)
		if err != nil {
			return flow.Key{}, false
		}
		ends[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	key, _ := flow.MakeKey(flow.TCP, ends[0], ends[1], 0)
	return key, true
}

// inForce returns the policy of an interface, nil where there is none, and what
// its rules did. The kernel keeps the file that was applied; it is read again.
func inForce(iface *loader.Interface) (*flow.Policy, []loader.RuleStats, error) {
	applied, stats, err := iface.Policy()
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

// ruleLine is a rule as -o json prints it.
type ruleLine struct {
	Rule          int         `json:"rule"`
	Category      []string    `json:"category,omitempty"`
	App           []string    `json:"app,omitempty"`
	MinConfidence float64     `json:"min_confidence"`
	Final         bool        `json:"final"`
	Midstream     bool        `json:"midstream"`
	Drop          bool        `json:"drop"`
	RateBits      uint64      `json:"rate_bps,omitempty"`
	BurstBytes    uint64      `json:"burst_bytes,omitempty"`
	Scope         string      `json:"scope,omitempty"`
	DSCP          *int        `json:"dscp,omitempty"`
	Counters      *ruleCounts `json:"counters,omitempty"`
}

// ruleCounts is what a rule did.
type ruleCounts struct {
	Packets      uint64 `json:"packets"`
	Bytes        uint64 `json:"bytes"`
	Dropped      uint64 `json:"dropped"`
	DroppedBytes uint64 `json:"dropped_bytes"`
	Marked       uint64 `json:"marked"`
}

func makeRuleLine(number int, r flow.Rule) ruleLine {
	line := ruleLine{
		Rule: number, Category: r.Categories, App: r.Apps, MinConfidence: r.MinConfidence, Final: !r.Provisional,
		Midstream: r.Midstream, Drop: r.Action.Drop, RateBits: r.Action.Rate, BurstBytes: r.Action.Burst,
	}
	if r.Action.Rate > 0 {
		line.Scope = "class"
		if r.Action.Scope == flow.ScopeFlow {
			line.Scope = "flow"
		}
	}
	if r.Action.DSCP >= 0 && !r.Action.Drop {
		line.DSCP = &r.Action.DSCP
	}
	return line
}

// printRules prints one JSON object a rule; stats may be nil.
func printRules(out io.Writer, p *flow.Policy, stats []loader.RuleStats) error {
	if p == nil {
		return nil
	}
	encoder := json.NewEncoder(out)
	for i, rule := range p.Rules {
		line := makeRuleLine(i+1, rule)
		if i < len(stats) {
			counts := ruleCounts(stats[i])
			line.Counters = &counts
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// showPolicy prints the file in force and the counters of its rules.
func showPolicy(out io.Writer, iface string, p *flow.Policy, stats []loader.RuleStats) error {
	if p == nil {
		_, err := fmt.Fprintf(out, "%s: no policy\n", iface)
		return err
	}
	color := wantColor(out)
	cells := [][]cell{{{"#", bold}, {"MATCH", bold}, {"ACTION", bold}, {"PACKETS", bold}, {"BYTES", bold}, {"DROPPED", bold}, {"MARKED", bold}}}
	for i, rule := range p.Rules {
		var counts loader.RuleStats
		if i < len(stats) {
			counts = stats[i]
		}
		cells = append(cells, []cell{
			{strconv.Itoa(i + 1), plain}, {policy.DescribeMatch(rule), plain}, {policy.DescribeAction(rule.Action), plain},
			countCell(counts.Packets, plain), {humanBytes(counts.Bytes), plain}, countCell(counts.Dropped, red), countCell(counts.Marked, plain),
		})
	}
	lines := align(cells, []bool{true, false, false, true, true, true, true}, color, 0)
	lines = append(lines, "never dropped or policed: "+strings.Join(policy.DescribeProtected(p), ", "))
	if !p.Applied.IsZero() {
		lines = append(lines, "applied "+p.Applied.Local().Format("2006-01-02 15:04:05"))
	}
	_, err := fmt.Fprintf(out, "%s\n\n%s\n", strings.TrimRight(string(p.Source), "\n"), strings.Join(lines, "\n"))
	return err
}

// completePolicyFiles completes YAML files.
func completePolicyFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}
