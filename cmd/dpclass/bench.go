// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchCommand(g *globals) *cobra.Command {
	cmd := newGroupCommand("bench", "Measure what dpclass costs on this machine",
		"Measure what dpclass costs on this machine. -o json prints one object a case.",
		"  dpclass bench classifier\n  dpclass bench classifier --model default -o json")
	cmd.AddCommand(newBenchClassifierCommand(g), newBenchKernelCommand(g),
		newBenchLatencyCommand(g), newBenchThroughputCommand(g))
	return cmd
}

// maxBatch bounds the batches that can be measured.
const maxBatch = 4096

func newBenchClassifierCommand(g *globals) *cobra.Command {
	var options bench.ClassifierOptions
	cmd := &cobra.Command{
		Use:   "classifier",
		Short: "Packets a second that a model classifies on one core",
		Long: `Measure how many packets a second each model classifies on one core, in CPU time
of one thread, by batch size; and what a live packet costs besides (making the
vector, queue, the flow's verdict).`,
		Example: "  dpclass bench classifier\n  dpclass bench classifier --model default --batch 32 -o json\n  dpclass bench classifier --capture office.pcap",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, batch := range options.Batches {
				if batch < 1 || batch > maxBatch {
					return usagef("--batch %d: want 1 to %d", batch, maxBatch)
				}
			}
			options.Library = g.onnxruntime
			return bench.Classifier(options, benchPrinter[bench.ClassifierResult](g, cmd.OutOrStdout(),
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
	flags.StringArrayVar(&options.Models, "model", nil, "model to measure: `NAME` or FILE.onnx (default: every shipped one)")
	flags.IntSliceVar(&options.Batches, "batch", nil, "batch sizes (default 1, 8 and 32)")
	flags.StringVar(&options.Capture, "capture", "", "take the packets of this capture `FILE`")
	flags.DurationVar(&options.About, "time", 2*time.Second, "time for each case")
	mustCompleteFunc(cmd, "model", completeModels)
	return cmd
}

// benchPrinter returns what prints each case of a bench as it is done: an object
// a line, or a row below the titles.
func benchPrinter[T any](g *globals, out io.Writer, titles string, row func(T) string) func(T) error {
	if g.json() {
		encoder := json.NewEncoder(out)
		return func(result T) error { return encoder.Encode(result) }
	}
	first := true
	return func(result T) error {
		if first {
			first = false
			if _, err := fmt.Fprintln(out, titles); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(out, row(result))
		return err
	}
}
