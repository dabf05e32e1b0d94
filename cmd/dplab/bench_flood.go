// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchFloodCommand(g *cli.Globals) *cobra.Command {
	var options bench.FloodOptions
	cmd := &cobra.Command{
		Use:   "flood",
		Short: "Measure what a flood of one-packet flows does to other flows",
		Long: `Measure how many legitimate flows get a verdict, and how soon, during a flood of
one-packet flows: without a flood, with one from many addresses, and with one from a
single address. The legitimate flows come from real sockets, half of them TCP and
half UDP, over a veth pair in network namespaces: each sends 10 payloads, 50 ms
apart, and gets them back. The agent works as in dpclass attach. Needs root.`,
		Example: "  dplab bench flood\n  dplab bench flood --case one-source --packets-per-second 100000 -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkCases(options.Cases, bench.FloodCases()); err != nil {
				return err
			}
			switch flows := options.Time.Seconds() * float64(options.Flows); {
			case options.PerSecond < 1:
				return cli.Usagef("--packets-per-second %d: want at least 1", options.PerSecond)
			case flows < 10 || flows > bench.MaxFloodFlows:
				return cli.Usagef("--flows-per-second %d for %v: want 10 to %d flows in total", options.Flows, options.Time, bench.MaxFloodFlows)
			}
			var err error
			if options.Models, err = cli.ModelsOr(options.Models); err != nil {
				return err
			}
			options.Library = g.Library
			options.Log = g.Logger(cmd.ErrOrStderr(), "text")
			progress := cli.NewProgress(cmd.ErrOrStderr(), "cases", len(bench.FloodCases()))
			defer progress.Wipe()
			options.Progress = func(n, _ int, what string) { progress.Step(n, what) }
			print := cli.RowPrinter[bench.FloodResult](g, cmd.OutOrStdout(),
				benchTitles("%-13s %9s %7s %9s %9s %9s %9s %9s", "FLOOD FROM", "PACKETS/s", "FLOWS", "DECIDED", "p50 ms", "p99 ms", "SHED", "EVICTED"),
				func(r bench.FloodResult) string {
					return fmt.Sprintf("%-13s %9.0f %7d %7.1f %% %9.2f %9.2f %9d %9d", r.Case, r.PerSecond, r.Flows, 100*r.Decided, r.P50, r.P99, r.Shed, r.Evicted)
				})
			return interrupted(cmd.Context(), bench.Flood(cmd.Context(), options, func(r bench.FloodResult) error {
				progress.Wipe()
				return print(r)
			}))
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&options.Cases, "case", nil, "measure only the `CASE`; may be given more than once (default: all)")
	flags.IntVar(&options.PerSecond, "packets-per-second", 40000, "one-packet flows per second of the flood")
	flags.IntVar(&options.Flows, "flows-per-second", 100, "new legitimate flows per second")
	flags.DurationVar(&options.Time, "time", 10*time.Second, "how long to start new flows in each case")
	flags.StringArrayVar(&options.Models, "model", nil, "`NAME` of a shipped model, or FILE.onnx (default: as dpclass attach)")
	cli.Complete(cmd, "case", bench.FloodCases()...)
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}
