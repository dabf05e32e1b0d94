// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

func newModelsUseCommand(g *cli.Globals) *cobra.Command {
	var reset bool
	use := &cobra.Command{
		Use:   "use NAME|FILE... | --reset",
		Short: "Choose the models to use without --model",
		Long: `Choose one model, or two with one task each, for every later attach, classify and
eval without --model. The models are verified first. Root's choice applies to every
user and is kept in /etc/dpclass/model; another user's choice is kept in
$XDG_CONFIG_HOME/dpclass/model (~/.config/dpclass/model) and overrides root's for that user:
agents that are started with sudo do not see it.
An agent that was started without --model loads the choice on "dpclass reload": it
samples flows without a final verdict again, and keeps final verdicts.`,
		Example: `  sudo dpclass models use cnn-app cnn-traffic
  dpclass models use ./mine.onnx
  dpclass models use --reset`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case reset && len(args) > 0:
				return cli.Usagef("--reset takes no model: leave out %q", args[0])
			case !reset && len(args) == 0:
				return cli.Usagef("want a model, a name (%s) or a FILE.onnx, or --reset", strings.Join(model.Shipped(), ", "))
			}
			return nil
		},
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := tui.Safe(cmd.OutOrStdout())
			if reset {
				file, err := cli.ResetModels()
				if err != nil {
					return err
				}
				if file == "" {
					_, err = fmt.Fprintln(out, "no model was chosen")
				} else {
					_, err = fmt.Fprintf(out, "removed %s\n", file)
				}
				return err
			}
			models, err := model.LoadAll(args)
			if err != nil {
				return err
			}
			if _, err := runModels(models, g.Library); err != nil {
				return err
			}
			var chosen []string
			for i, m := range models {
				name := args[i]
				if model.IsFile(name) {
					if name, err = filepath.Abs(m.Path); err != nil {
						return err
					}
				}
				chosen = append(chosen, name)
			}
			file, err := cli.ChooseModels(chosen)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s will be used if --model is not given (%s)\n%s\n"+
				"agents that run without --model load it on \"dpclass reload --all\"\n", baseNames(args), file, cli.ChoiceScope(file))
			return err
		},
	}
	use.Flags().BoolVar(&reset, "reset", false, "remove the choice and use the shipped default")
	return use
}

func baseNames(names []string) string {
	short := make([]string, 0, len(names))
	for _, name := range names {
		short = append(short, filepath.Base(name))
	}
	return strings.Join(short, ", ")
}
