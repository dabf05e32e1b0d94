// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

// maxBatch is the largest batch that can be measured.
const maxBatch = 4096

func newBenchClassifierCommand(g *cli.Globals) *cobra.Command {
	var options bench.ClassifierOptions
	cmd := &cobra.Command{
		Use:   "classifier",
		Short: "Measure the packets per second that a model classifies on one core",
		Long: `Measure how many packets per second each model classifies on one core, in CPU time
of one thread, by batch size. LIVE includes the other work for a live packet: making
the vector, the queue, the flow's verdict.`,
		Example: "  dplab bench classifier\n  dplab bench classifier --model default --batch 32 -o json\n  dplab bench classifier --capture office.pcap",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, batch := range options.Batches {
				if batch < 1 || batch > maxBatch {
					return cli.Usagef("--batch %d: want 1 to %d", batch, maxBatch)
				}
			}
			options.Library = g.Library
			return bench.Classifier(cmd.Context(), options, cli.RowPrinter[bench.ClassifierResult](g, cmd.OutOrStdout(),
				fmt.Sprintf("%-16s %-5s %5s %12s %12s %14s", "MODEL", "TYPE", "BATCH", "PACKETS/S", "us/PACKET", "us/PACKET LIVE"),
				func(r bench.ClassifierResult) string {
					name := r.Model
					if r.Default {
						name += " *"
					}
					return fmt.Sprintf("%-16s %-5s %5d %12.0f %12.1f %14.1f", name, r.Precision, r.Batch, r.PerSecond, r.Micros, r.LiveMicros)
				}))
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&options.Models, "model", nil, "`NAME` of a shipped model, or FILE.onnx (default: all shipped ones)")
	flags.IntSliceVar(&options.Batches, "batch", nil, "batch `SIZES` (default: 1,8,32)")
	flags.StringVar(&options.Capture, "capture", "", "use the packets of this capture `FILE` (default: random ones)")
	flags.DurationVar(&options.About, "time", 2*time.Second, "time to measure each case")
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}
