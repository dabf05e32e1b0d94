// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/loader"
)

func newFlowsSetCommand(g *cli.Globals) *cobra.Command {
	var labels [flow.NumTasks]string
	cmd := &cobra.Command{
		Use:   "set IFACE FLOW",
		Short: "Give a flow an operator's verdict",
		Long: `Give a flow an operator's verdict on its category, its application or both. It is
final and replaces the model's. FLOW is "tcp ADDR:PORT ADDR:PORT" or
"udp ADDR:PORT ADDR:PORT", either end first, with IPv6 addresses in brackets.`,
		Example: `  dpclass flows set eth0 "tcp 10.0.0.2:4000 10.0.0.1:80" --category voip
  dpclass flows set eth0 "udp [fd00::1]:5000 [fd00::2]:80" --category streaming --app youtube`,
		Args:              cli.Exactly("IFACE", "FLOW"),
		ValidArgsFunction: completeFlows(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			if labels == ([flow.NumTasks]string{}) {
				return cli.Usagef("a verdict is missing: give --category, --app or both")
			}
			key, err := flow.ParseKey(args[1])
			if err != nil {
				return cli.Usage(err)
			}
			return changeInterface(g, args[0], func(iface *loader.Pins) error {
				key, err := setVerdicts(iface, key, labels)
				if err != nil {
					return err
				}
				record, err := iface.Table().Lookup(key)
				if err != nil {
					return err
				}
				return printVerdicts(cmd.OutOrStdout(), g, key, record)
			})
		},
	}
	for _, task := range flow.Tasks {
		cmd.Flags().StringVar(&labels[task], task.String(), "", "the flow's "+task.String()+" is this `LABEL`")
		cli.Complete(cmd, task.String(), append(slices.Clone(task.Labels()), flow.Unknown)...)
	}
	return cmd
}

// setVerdicts gives a flow the operator's labels, "" to leave a task as it is, and returns
// the flow's key: an IPv4 key also finds IPv6 flows with IPv4-mapped addresses.
func setVerdicts(iface *loader.Pins, key flow.Key, labels [flow.NumTasks]string) (flow.Key, error) {
	var verdicts flow.Verdicts
	apps, err := catalogueApps(&nameFiles{})
	if err != nil {
		return key, err
	}
	for task, label := range labels {
		if err := checkLabel(flow.Task(task), label, iface.Labels(), apps); err != nil {
			return key, err
		}
		if label != "" {
			verdicts[task] = flow.Verdict{Label: label, Confidence: 1, Source: flow.SourceOperator, Final: true}
		}
	}
	err = iface.Table().SetVerdicts(key, verdicts)
	if errors.Is(err, loader.ErrNoFlow) && !key.Is6() && iface.Table().SetVerdicts(key.Mapped(), verdicts) == nil {
		key, err = key.Mapped(), nil
	}
	if errors.Is(err, loader.ErrNoFlow) {
		return key, fault.Advise(err, "list the flows with: dpclass flows %s", iface.Name())
	}
	return key, err
}

func printVerdicts(out io.Writer, g *cli.Globals, key flow.Key, record flow.Record) error {
	if g.JSON() {
		return cli.PrintJSON(out, record)
	}
	_, err := fmt.Fprintf(out, "%s: category %s, app %s\n", key,
		withSource(record.Category, record.CategorySource), withSource(record.App, record.AppSource))
	return err
}

// withSource returns a label with who gave it.
func withSource(label, source string) string {
	if source == "" {
		return tui.OrNone(label)
	}
	return label + " (" + source + ")"
}

// checkLabel accepts "", "unknown", the task's own labels, the catalogue's applications
// that the interface has, and labels that only the interface's models have.
func checkLabel(task flow.Task, label string, ofInterface, apps []string) error {
	known := append(slices.Clone(task.Labels()), flow.Unknown)
	if label == "" || slices.Contains(known, label) {
		return nil
	}
	if slices.Contains(ofInterface, label) && !slices.Contains(flow.Vocabulary, label) &&
		(task == flow.App || !slices.Contains(apps, label)) {
		return nil
	}
	return fault.Advise(fmt.Errorf("unknown %s %q%s", task, label, near.Hint(label, known)), "known: %s", strings.Join(known, ", "))
}

// completeFlows completes an interface and then one of its flows.
func completeFlows(g *cli.Globals) cobra.CompletionFunc {
	attached := completeAttached(g, cobra.ShellCompDirectiveNoFileComp)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return attached(cmd, args, word)
		}
		var flows []string
		err := withInterface(g, args[0], func(iface *loader.Pins) error {
			records, err := iface.Table().Flows()
			for _, r := range records {
				flows = append(flows, r.Key().String())
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return flows, cobra.ShellCompDirectiveNoFileComp
	}
}
