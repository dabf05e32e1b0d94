// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
)

// newModelsCommand returns `dpclass models` with its verbs.
func newModelsCommand(g *cli.Globals) *cobra.Command {
	models := &cobra.Command{
		Use:   "models",
		Short: "List, show, verify and choose the models",
		Long: `The models are the neural networks that flows are classified with. Some are part
of dpclass; your own is a FILE.onnx with its manifest FILE.json next to it.`,
		Example: `  dpclass models list
  dpclass models show cnn-traffic
  dpclass models verify ./mine.onnx
  dpclass models use cnn-app cnn-traffic`,
		Args: cli.NoVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	models.AddCommand(newModelsListCommand(g), newModelsShowCommand(g), newModelsVerifyCommand(g), newModelsUseCommand(g))
	return models
}
