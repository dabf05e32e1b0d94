// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/modelcard"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

func newModelsShowCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME|FILE",
		Short: "Show what a model is, what it was trained on and where it is weak",
		Long: `Show a model's manifest: tasks and labels, training data, the figures measured on
each split, known weaknesses and licence. -o json prints the manifest as one
object.`,
		Example: `  dpclass models show default
  dpclass models show ./mine.onnx -o json`,
		Args:              oneModel,
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := model.Load(args[0])
			if err != nil {
				return err
			}
			if g.JSON() {
				return cli.PrintJSON(cmd.OutOrStdout(), m.Manifest)
			}
			return showModel(tui.Safe(cmd.OutOrStdout()), m)
		},
	}
}

// oneModel checks that there is one argument, a model.
func oneModel(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return cli.Usagef("want one model, a name (%s) or a FILE.onnx; got %d arguments", strings.Join(model.Shipped(), ", "), len(args))
	}
	return nil
}

func showModel(out io.Writer, m *model.Model) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", tui.Printable(name), tui.Printable(value))
		}
	}
	row("name", m.Name)
	if m.Path == "" {
		row("file", "(built in)")
	} else {
		row("file", m.Path)
	}
	row("architecture", m.Architecture)
	row("size", fmt.Sprintf("%d parameters, %.2f MMAC a packet, %s, %s", m.Parameters, float64(m.MAC)/1e6, m.Precision, modelcard.Size(m.Size())))
	for _, task := range m.Task {
		row(task.String(), strings.Join(m.Labels[task], " "))
		unknown := fmt.Sprintf("unknown below %.3g", m.UnknownThreshold[task])
		if m.UnknownThreshold[task] == 0 {
			unknown = "never unknown"
		}
		row("", "")
		row("  verdict", fmt.Sprintf("temperature %.3g, final from %.3g or after %d samples, %s", m.Temperature[task], m.FinalConfidence, m.Samples, unknown))
	}
	row("data", fmt.Sprintf("%d packets of %d flows, seed %d", m.Training.Packets, m.Training.Flows, m.Training.Seed))
	row("  split", m.Training.Split)
	for _, set := range m.Training.Data {
		row("  "+set.Set, strings.TrimSuffix(set.Source+"; "+set.Licence, "; "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := modelcard.Read(m.Figures).Print(out); err != nil {
		return err
	}
	if err := showOperatingPoints(out, m); err != nil {
		return err
	}
	if len(m.Weaknesses) > 0 {
		fmt.Fprintln(out, "\nweaknesses")
		for _, weakness := range m.Weaknesses {
			fmt.Fprintf(out, "- %s\n", wrap(weakness, "  "))
		}
	}
	_, err := fmt.Fprintf(out, "\nlicence  %s\nsha256   %s\n", tui.Printable(m.Licence), m.SHA256)
	return err
}

// showOperatingPoints prints what --min-confidence buys; nothing if the manifest does
// not say.
func showOperatingPoints(out io.Writer, m *model.Model) error {
	if len(m.OperatingPoints) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\n--min-confidence\ttask\tflows with a verdict\tof these right")
	for _, task := range m.Task {
		for _, p := range m.OperatingPoints[task] {
			fmt.Fprintf(table, "%g\t%s\t%.0f %%\t%.0f %%\n", p.MinConfidence, task, 100*p.Coverage, 100*p.Right)
		}
	}
	return table.Flush()
}

// wrap breaks a text into lines of at most 100 columns; all but the first begin with
// the indent.
func wrap(text, indent string) string {
	const width = 100
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return strings.Join(append(lines, line), "\n"+indent)
}
