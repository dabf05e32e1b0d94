// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchRaceCommand(g *cli.Globals) *cobra.Command {
	var options bench.RaceOptions
	cmd := &cobra.Command{
		Use:   "race",
		Short: "Run packets on two CPUs against changes of their flows, and check every count",
		Long: `Send packets of 16 flows through the programs on two CPUs, at times both of the same
flow, while the flows are decided, get other verdicts and end, and policies change.
It fails if a packet is counted as another flow's, a packet is lost, or a rule acts on
a flow that is not its flow any more.

--delays holds some packets up for 400 us between what they read and what they write,
where other packets and the writer may come between.`,
		Example: "  sudo dplab bench race\n  sudo dplab bench race --time 10m --delays",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			progress := cli.NewProgress(cmd.ErrOrStderr(), "seconds", int(options.Duration.Seconds()))
			defer progress.Wipe()
			options.Log = g.Logger(cmd.ErrOrStderr(), "text")
			options.Progress = func(done time.Duration) { progress.Step(int(done.Seconds()), "racing") }
			result, err := bench.Race(cmd.Context(), options)
			progress.Wipe()
			if err != nil {
				return interrupted(cmd.Context(), err)
			}
			return cli.RowPrinter[bench.RaceResult](g, cmd.OutOrStdout(),
				benchTitles("%7s %11s %9s %8s %7s %8s %8s %5s", "SECONDS", "PACKETS", "VERDICTS", "POLICIES", "LIVES", "WINDOWS", "COMPARED", "LATE"),
				func(r bench.RaceResult) string {
					return fmt.Sprintf("%7.0f %11d %9d %8d %7d %8d %8d %5d", r.Seconds, r.Packets, r.Verdicts, r.Policies, r.Lives, r.Windows, r.Compared, r.Late)
				})(result)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&options.Duration, "time", time.Minute, "time to run")
	flags.BoolVar(&options.Delays, "delays", false, "hold some packets up")
	flags.BoolVar(&options.NoFastPath, "no-fast-path", false, "all packets take the general way")
	return cmd
}
