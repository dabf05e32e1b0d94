// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchCommand(g *cli.Globals) *cobra.Command {
	cmd := cli.Group("bench", "Measure what dpclass costs on this machine",
		"Measure what dpclass costs on this machine. -o json prints one object per case.",
		"  dplab bench classifier\n  sudo dplab bench kernel -o json")
	cmd.AddCommand(newBenchClassifierCommand(g), newBenchEvidenceCommand(g), newBenchFloodCommand(g), newBenchKernelCommand(g), newBenchLatencyCommand(g), newBenchMemoryCommand(g), newBenchRaceCommand(g),
		newBenchThroughputCommand(g))
	g.LibraryFlag(cmd)
	return cmd
}

// benchTitles puts the machine above the titles of a table. In JSON, each object has it.
func benchTitles(format string, titles ...any) string {
	return fmt.Sprintf("On this machine (%s):\n"+format, append([]any{bench.Machine()}, titles...)...)
}

// interrupted replaces the errors of a bench that was ended by a signal.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted; the network namespaces of the benchmark are removed")
	}
	return err
}

// completeModels completes names of models, and files.
var completeModels = cli.CompleteNamesAndFiles(func() []string { return model.Shipped() })
