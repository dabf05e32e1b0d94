// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchLatencyCommand(g *cli.Globals) *cobra.Command {
	var options bench.LatencyOptions
	cmd := &cobra.Command{
		Use:   "latency",
		Short: "Measure the time from a flow's first payload packet to its verdict",
		Long: `Measure how soon new flows have a verdict. The flows come from real sockets, half of
them TCP and half UDP, over a veth pair in network namespaces; the agent works as in
dpclass attach. The time runs from just before the call that sends the flow's first
payload until the agent has stored the flow's first verdict in the kernel's map. A
flow that has no verdict one second after the last flow counts as lost. Needs root.`,
		Example: "  dplab bench latency\n  dplab bench latency --flows-per-second 1000 --time 20s -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch flows := options.Time.Seconds() * float64(options.PerSecond); {
			case options.PerSecond < 1:
				return cli.Usagef("--flows-per-second %d: want at least 1", options.PerSecond)
			case flows < 10 || flows > bench.MaxLatencyFlows:
				return cli.Usagef("--flows-per-second %d for %v: want 10 to %d flows in total", options.PerSecond, options.Time, bench.MaxLatencyFlows)
			}
			var err error
			if options.Models, err = cli.ModelsOr(options.Models); err != nil {
				return err
			}
			options.Library = g.Library
			options.Log = g.Logger(cmd.ErrOrStderr(), "text")
			progress := cli.NewProgress(cmd.ErrOrStderr(), "flows", int(options.Time.Seconds()*float64(options.PerSecond)))
			defer progress.Wipe()
			options.Progress = func(n, _ int) { progress.Step(n, "begun") }
			print := cli.RowPrinter[bench.LatencyResult](g, cmd.OutOrStdout(),
				benchTitles("%-16s %-7s %8s %8s %9s %9s %9s %6s", "MODEL", "MODE", "FLOWS/s", "FLOWS", "p50 ms", "p99 ms", "MAX ms", "LOST"),
				func(r bench.LatencyResult) string {
					return fmt.Sprintf("%-16s %-7s %8.0f %8d %9.2f %9.2f %9.2f %6d", r.Model, r.Mode, r.PerSecond, r.Flows, r.P50, r.P99, r.Max, r.Lost)
				})
			result, err := bench.Latency(cmd.Context(), options)
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			progress.Wipe()
			return print(result)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.PerSecond, "flows-per-second", 500, "new flows per second")
	flags.DurationVar(&options.Time, "time", 10*time.Second, "how long to start new flows")
	flags.StringArrayVar(&options.Models, "model", nil, "`NAME` of a shipped model, or FILE.onnx (default: as dpclass attach)")
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}
