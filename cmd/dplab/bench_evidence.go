// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchEvidenceCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "evidence CAPTURE...",
		Short: "Measure what names and protocols save on the flows of captures",
		Long: `Classify the flows of captures as a live interface would, first with the model alone
and then with names and protocols first. SKIPPED samples needed no network. Rates
are per second of CPU time, on one worker.`,
		Example: "  dplab bench evidence office.pcap\n  dplab bench evidence captures/*.pcap -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("CAPTURE is missing: name capture files of your own traffic")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			err := bench.Evidence(cmd.Context(), bench.EvidenceOptions{Library: g.Library, Captures: args},
				cli.RowPrinter[bench.EvidenceResult](g, cmd.OutOrStdout(),
					benchTitles("%-10s %8s %9s %9s %9s %12s %10s", "EVIDENCE", "FLOWS", "SAMPLES", "SKIPPED", "SETTLED", "SAMPLES/S", "FLOWS/S"),
					func(r bench.EvidenceResult) string {
						return fmt.Sprintf("%-10s %8d %9d %9d %9d %12.0f %10.0f", r.Evidence, r.Flows, r.Samples, r.Skipped, r.Settled, r.PerSecond, r.FlowsPerS)
					}))
			return interrupted(cmd.Context(), err)
		},
	}
}
