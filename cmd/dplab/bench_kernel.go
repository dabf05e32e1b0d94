// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchKernelCommand(g *cli.Globals) *cobra.Command {
	var options bench.KernelOptions
	cases := bench.KernelCases()
	half := len(cases) / 2 // a line
	names := strings.Join(cases[:half], ", ") + ",\n" + strings.Join(cases[half:], ", ")
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Measure the nanoseconds that the programs add to a packet",
		Long: `Measure the time that the programs in the kernel add to a packet: the difference
between test runs (BPF_PROG_TEST_RUN) of the attached program and of an empty one,
which alternate. Each case has its own device in a network namespace. Needs root.

Cases: ` + names + `.
In the cases flows-*, that many decided flows are live, and each packet belongs to a
different one. lookup-alone is one lookup in the flow table and nothing else.`,
		Example: "  dplab bench kernel\n  dplab bench kernel --case decided-ipv4-tcp --case policed -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkCases(options.Cases, bench.KernelCases()); err != nil {
				return err
			}
			if options.Rounds < 1 {
				return cli.Usagef("--rounds %d: want at least 1", options.Rounds)
			}
			progress := cli.NewProgress(cmd.ErrOrStderr(), "cases", len(bench.KernelCases()))
			defer progress.Wipe()
			options.Log = g.Logger(cmd.ErrOrStderr(), "text")
			options.Progress = func(n, _ int, what string) { progress.Step(n, what) }
			print := cli.RowPrinter[bench.KernelResult](g, cmd.OutOrStdout(),
				benchTitles("%-18s %8s %8s %8s %12s", "CASE", "ns", "EMPTY ns", "ADDED ns", "LEAST ADDED"),
				func(r bench.KernelResult) string {
					return fmt.Sprintf("%-18s %8.0f %8.0f %8.0f %12.0f", r.Case, r.NS, r.EmptyNS, r.AddedNS, r.LeastNS)
				})
			return interrupted(cmd.Context(), bench.Kernel(cmd.Context(), options, func(r bench.KernelResult) error {
				progress.Wipe()
				return print(r)
			}))
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&options.Cases, "case", nil, "`CASE` to measure; may be given more than once (default: all)")
	flags.IntVar(&options.Rounds, "rounds", 41, "rounds of each case; the median counts")
	cli.CompleteFunc(cmd, "case", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return bench.KernelCases(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func checkCases(chosen, all []string) error {
	for _, name := range chosen {
		if !slices.Contains(all, name) {
			return cli.Usagef("--case %q: want one of %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}
