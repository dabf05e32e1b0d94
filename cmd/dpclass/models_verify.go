// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/modelcard"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

func newModelsVerifyCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME|FILE]...",
		Short: "Check hash, versions, shapes and labels of models, and run them",
		Long: `Check models against their manifests: the sha256 of the file, format and vector
version, shapes and types of input and outputs, labels. Then run each of them once
in ONNX Runtime. Without arguments, check all shipped models.`,
		Example: `  dpclass models verify
  dpclass models verify ./mine.onnx`,
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = model.Shipped()
			}
			for _, name := range args {
				m, version, err := verifyModel(name, g.Library)
				if err != nil {
					return err
				}
				line := modelcard.Summarize(m)
				line.Runtime = version
				if g.JSON() {
					err = cli.PrintJSON(cmd.OutOrStdout(), line)
				} else {
					_, err = fmt.Fprintf(tui.Safe(cmd.OutOrStdout()), "%s: ok (sha256 %s…, %s, ran in ONNX Runtime %s)\n", name, m.SHA256[:12], line.TaskNames(), version)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// verifyModel checks a model and runs it; it returns ONNX Runtime's release.
func verifyModel(nameOrFile, library string) (*model.Model, string, error) {
	m, err := model.Load(nameOrFile)
	if err != nil {
		return nil, "", err
	}
	version, err := runModels([]*model.Model{m}, library)
	return m, version, err
}
