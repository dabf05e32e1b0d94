// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/modelcard"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

func newModelsListCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the shipped models and the one in use",
		Long: `List the shipped models and those that "dpclass models use" chose. "*" marks what
attach, classify and eval use without --model.

FLOW SPLIT and CAPTURE SPLIT are the accuracy by flow, category+app, on flows and on
captures that were kept out of the training (docs/evaluation.md). For a model of your
own, "v" marks the accuracy on the flows that its training kept out. PACKETS/S is for
one core at batch 32, measured when the model was exported.`,
		Example: `  dpclass models list
  dpclass models list -o json`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listModels(cmd.OutOrStdout(), cmd.ErrOrStderr(), g)
		},
	}
}

func listModels(out, warn io.Writer, g *cli.Globals) error {
	choice, err := cli.ChosenModels()
	if err != nil {
		return err
	}
	chosen := choice.Models
	if len(chosen) == 0 {
		chosen = []string{model.Default}
	}
	names := model.Shipped()
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var lines []modelcard.Summary
	var failed error
	for _, name := range names {
		m, err := model.Load(name)
		if err != nil {
			// The others can still be listed.
			failed = errors.Join(failed, err)
			continue
		}
		line := modelcard.Summarize(m)
		line.InUse = slices.Contains(chosen, name)
		lines = append(lines, line)
	}
	if g.JSON() {
		return errors.Join(cli.PrintJSON(out, lines...), failed)
	}
	table := tabwriter.NewWriter(tui.Safe(out), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tNAME\tTASKS\tLABELS\tFLOW SPLIT\tCAPTURE SPLIT\tPACKETS/S\tPRECISION\tSIZE\tSHA256\tFILE")
	for _, line := range lines {
		mark := ""
		if line.InUse {
			mark = "*"
		}
		file := line.File
		if file == "" {
			file = "(built in)"
		}
		perSecond := "-"
		if line.Speed > 0 {
			perSecond = fmt.Sprintf("%.0f", line.Speed)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, line.Name, line.TaskNames(), line.LabelCounts(),
			line.AccuracyOn(modelcard.FlowSplit, modelcard.Validation), line.AccuracyOn(modelcard.CaptureSplit, ""), perSecond,
			tui.Printable(line.Precision), modelcard.Size(line.Bytes), line.SHA256[:12], file)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if choice.File != "" {
		fmt.Fprintf(warn, "* chosen in %s; \"dpclass models use --reset\" removes the choice\n", tui.Printable(choice.File))
	}
	return failed
}
