// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
)

// evidenceWords are the values of --evidence.
var evidenceWords = []string{string(classifier.EvidenceAll), string(classifier.EvidenceProtocol), string(classifier.EvidenceModel)}

// addEvidence adds the flag --evidence.
func addEvidence(cmd *cobra.Command, value *string) {
	*value = string(classifier.EvidenceAll)
	cmd.Flags().Var(&cli.Choice{Value: value, Words: evidenceWords}, "evidence",
		"what verdicts may rest on: all (names, protocols, models), protocol (no names) or model (the networks alone)")
	cli.Complete(cmd, "evidence", evidenceWords...)
}

const dnsOfflineHelp = "let DNS answers in the capture name flows that have no server name of their own"

// addSamples adds --samples to a verb that classifies. 0 is not a number of samples: "attach
// --no-classify" counts flows without reading any packet of them.
func addSamples(cmd *cobra.Command, value *int) {
	cmd.Flags().Var(&cli.Number{Value: value, Min: 1, Max: flow.MaxSamples}, "samples",
		fmt.Sprintf("payload packets to read per flow, 1 to %d (default: the model's)", flow.MaxSamples))
}
