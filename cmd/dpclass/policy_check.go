// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
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
that they never say has a warning. With --model it also prints which share of each class a
rule would hit wrongly, from the model's confusion matrix, if its manifest has one.

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
			options, labels, named, err := checkedModels(models)
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
			mistakes := misjudged(p, named)
			if g.JSON() {
				return cli.PrintJSON(cmd.OutOrStdout(), checkedRules(p, mistakes)...)
			}
			out := tui.Safe(cmd.OutOrStdout())
			if err := policy.Explain(out, p); err != nil {
				return err
			}
			for n, m := range named {
				if _, err := fmt.Fprintf(out, "\nWhat the model %s would make of it:\n", m.Name); err != nil {
					return err
				}
				if err := policy.ExplainMistakes(out, m.Name, mistakes[n]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&models, "model", nil, "model whose labels the policy may use: `NAME` or FILE.onnx (default: the choice of \"dpclass models use\")")
	names.flag(cmd)
	cli.CompleteFunc(cmd, "model", completeModels)
	return cmd
}

// checkedModels returns the labels that models add, and the models that were named. If models were named, the options make
// the parser warn of labels that these never say. Without names it is not an error if the
// chosen models cannot be read: most policies use none of their labels.
func checkedModels(names []string) (options []policy.Option, labels []string, named []*model.Model, err error) {
	models, err := loadModels(names)
	if err != nil {
		if len(names) == 0 {
			return nil, nil, nil, nil
		}
		return nil, nil, nil, err
	}
	labels = model.NewLabels(models)
	if len(names) == 0 {
		return nil, labels, nil, nil
	}
	return []policy.Option{policyModels(models)}, labels, models, nil
}

// misjudged returns what each model makes a policy do wrong.
func misjudged(p *flow.Policy, models []*model.Model) [][]policy.Mistakes {
	all := make([][]policy.Mistakes, len(models))
	for n, m := range models {
		confusions := map[flow.Task]policy.Confusion{}
		for task, c := range m.Confusion {
			confusions[task] = policy.Confusion(c)
		}
		all[n] = policy.Misjudged(p, m.Name, confusions)
	}
	return all
}

// checkedRule is a rule as "policy check -o json" prints it.
type checkedRule struct {
	policy.RuleLine
	Mistakes []policy.Mistakes `json:"mistakes,omitempty"` // of each model that was named, if it acts on its verdicts
}

func checkedRules(p *flow.Policy, mistakes [][]policy.Mistakes) (rules []checkedRule) {
	for _, line := range policy.Lines(p) {
		rule := checkedRule{RuleLine: line}
		for _, all := range mistakes {
			for _, m := range all {
				if m.Rule == line.Rule {
					rule.Mistakes = append(rule.Mistakes, m)
				}
			}
		}
		rules = append(rules, rule)
	}
	return rules
}
