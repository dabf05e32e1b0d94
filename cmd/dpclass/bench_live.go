// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/bench"
)

// benchTitle names the machine above a table; JSON has it in each object.
func benchTitle(g *globals, out io.Writer) {
	if !g.json() {
		fmt.Fprintf(out, "On this machine (%s):\n", bench.Machine())
	}
}

func newBenchKernelCommand(g *globals) *cobra.Command {
	var options bench.KernelOptions
	names := strings.Join(bench.KernelCases(), ", ")
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "Nanoseconds that the programs add to a packet",
		Long: `Measure what the programs in the kernel add to a packet, by test runs of the
attached program (BPF_PROG_TEST_RUN) in turn with an empty one: the difference
is what counts. Each case has a device of its own in a network namespace. Root
is needed.

Cases: ` + names + `.
In flows-* that many decided flows are live and each packet is of another one.`,
		Example: "  dpclass bench kernel\n  dpclass bench kernel --case decided-ipv4-tcp --case policed -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkCases(options.Cases, bench.KernelCases()); err != nil {
				return err
			}
			if options.Rounds < 1 {
				return usagef("--rounds %d: want at least 1", options.Rounds)
			}
			progress := newProgress(cmd.ErrOrStderr(), "cases", len(bench.KernelCases()))
			defer progress.done()
			options.Log = g.logger(cmd.ErrOrStderr(), "text")
			options.Progress = func(n, _ int, what string) { progress.step(n, what) }
			print := benchPrinter[bench.KernelResult](g, cmd.OutOrStdout(),
				fmt.Sprintf("%-18s %8s %8s %8s %12s", "CASE", "ns", "EMPTY ns", "ADDED ns", "LEAST ADDED"),
				func(r bench.KernelResult) string {
					return fmt.Sprintf("%-18s %8.0f %8.0f %8.0f %12.0f", r.Case, r.NS, r.EmptyNS, r.AddedNS, r.LeastNS)
				})
			benchTitle(g, cmd.OutOrStdout())
			return bench.Kernel(cmd.Context(), options, func(r bench.KernelResult) error {
				progress.wipe()
				return print(r)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&options.Cases, "case", nil, "`CASE` to measure (default: every one)")
	flags.IntVar(&options.Rounds, "rounds", 41, "rounds of each case, of which the median counts")
	mustCompleteFunc(cmd, "case", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return bench.KernelCases(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func checkCases(chosen, all []string) error {
	for _, name := range chosen {
		known := false
		for _, one := range all {
			known = known || one == name
		}
		if !known {
			return usagef("--case %q: want one of %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}
