// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyCheckCommand(g *cli.Globals) *cobra.Command {
	var models []string
	var names nameFiles
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a policy file and explain it",
		Long: `Check a policy file and say in a sentence what each of its rules does, with every
default and unit written out. It changes nothing and needs no privileges. The exit code is 0 if the
file can be applied. To use the labels of your own models, name them with --model: a label
that they never say has a warning.

` + policy.Help,
		Example: "  dpclass policy check policy.yaml\n  dpclass policy check policy.yaml --model ./mine.onnx -o json",
		Args:    cli.Exactly("FILE"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completePolicyFiles(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			options, labels, err := checkedModels(models)
			if err != nil {
				return err
			}
			apps, err := catalogueApps(&names)
			if err != nil {
				return err
			}
			p, err := readPolicy(cmd, args[0], labels, append(options, policy.WithApps(apps))...)
			if err != nil {
				return err
			}
			if g.JSON() {
				return cli.PrintJSON(cmd.OutOrStdout(), policy.Lines(p)...)
			}
			return policy.Explain(tui.Safe(cmd.OutOrStdout()), p)
		},
	}
	cmd.Flags().StringArrayVar(&models, "model", nil, "model whose labels the policy may use: `NAME` or FILE.onnx (default: the choice of \"dpclass models use\")")
	names.flag(cmd)
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}

// checkedModels returns the labels that models add. If models were named, the options make
// the parser warn of labels that these never say. Without names it is not an error if the
// chosen models cannot be read: most policies use none of their labels.
func checkedModels(names []string) ([]policy.Option, []string, error) {
	models, err := loadModels(names)
	if err != nil {
		if len(names) == 0 {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	labels := model.NewLabels(models)
	if len(names) == 0 {
		return nil, labels, nil
	}
	return []policy.Option{policyModels(models)}, labels, nil
}
