// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
	"github.com/dpclass/dpclass/loader"
)

func newBenchThroughputCommand(g *cli.Globals) *cobra.Command {
	var options bench.ThroughputOptions
	var modes []string
	cmd := &cobra.Command{
		Use:   "throughput",
		Short: "Measure iperf3 with nothing attached, with empty programs and with dpclass",
		Long: `Measure one TCP stream of iperf3 over a veth pair in network namespaces: in turn
with nothing attached (off), with empty programs on both hooks (empty), and with
dpclass and its agent (on). The ratio is on divided by empty, of the medians. Needs
root and iperf3.`,
		Example: "  dplab bench throughput\n  dplab bench throughput --mode native --rounds 9 -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range modes {
				mode, err := loader.ParseMode(name)
				if err != nil || mode == loader.Auto {
					return cli.Usagef("--mode %q: want native or tc", name)
				}
				options.Modes = append(options.Modes, mode)
			}
			if options.Rounds < 1 || options.Time < time.Second {
				return cli.Usagef("--rounds %d of %v: want at least 1 round of at least 1s", options.Rounds, options.Time)
			}
			var err error
			if options.Models, err = cli.ModelsOr(options.Models); err != nil {
				return err
			}
			options.Library = g.Library
			options.Log = g.Logger(cmd.ErrOrStderr(), "text")
			progress := cli.NewProgress(cmd.ErrOrStderr(), "runs", 0)
			defer progress.Wipe()
			options.Progress = func(n, total int, what string) { progress.Step(n, fmt.Sprintf("of %d, %s", total, what)) }
			print := cli.RowPrinter[bench.ThroughputResult](g, cmd.OutOrStdout(),
				benchTitles("%-7s %10s %12s %9s %7s %11s", "MODE", "OFF Gbit/s", "EMPTY Gbit/s", "ON Gbit/s", "RATIO", "BEST RATIO"),
				func(r bench.ThroughputResult) string {
					return fmt.Sprintf("%-7s %10.2f %12.2f %9.2f %7.3f %11.3f", r.Mode, r.Off, r.Empty, r.On, r.Ratio, r.Best)
				})
			return interrupted(cmd.Context(), bench.Throughput(cmd.Context(), options, func(r bench.ThroughputResult) error {
				progress.Wipe()
				return print(r)
			}))
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&modes, "mode", nil, "`MODE` to measure (default: native and tc)")
	flags.IntVar(&options.Rounds, "rounds", 11, "rounds of each mode; the median counts")
	flags.DurationVar(&options.Time, "time", time.Second, "length of each iperf3 run")
	flags.StringArrayVar(&options.Models, "model", nil, "`NAME` of a shipped model, or FILE.onnx (default: as dpclass attach)")
	cli.CompleteFunc(cmd, "model", completeModels)
	cli.CompleteFunc(cmd, "mode", cobra.FixedCompletions([]string{"native", "tc"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
