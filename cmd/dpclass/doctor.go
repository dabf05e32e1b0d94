// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/cmd/dpclass/internal/doctor"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

func newDoctorCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine has what dpclass needs",
		Long: `Check the kernel and its features, privileges, the bpf file system, ONNX Runtime
and the models. Each line is ok, warn (something is missing that dpclass can do
without) or fail, with what to do. The exit code is 1 if a check fails.`,
		Example: "  dpclass doctor\n  sudo dpclass doctor -o json | jq 'select(.state != \"ok\")'",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var findings []doctor.Finding
			err := g.InNetns(func() error {
				choice, err := cli.ChosenModels()
				findings = doctor.Examine(g.Library, choice.Models)
				return err
			})
			if err != nil {
				return err
			}
			return printFindings(cmd.OutOrStdout(), g.JSON(), findings)
		},
	}
}

func printFindings(out io.Writer, asJSON bool, findings []doctor.Finding) error {
	color := tui.WantColor(out)
	styles := map[string]tui.Style{doctor.OK: tui.Green, doctor.Warn: tui.Yellow, doctor.Fail: tui.Red}
	failed := false
	for _, f := range findings {
		failed = failed || f.State == doctor.Fail
		if asJSON {
			if err := cli.PrintJSON(out, f); err != nil {
				return err
			}
			continue
		}
		line := tui.Paint(fmt.Sprintf("%-5s", f.State), styles[f.State], color) + fmt.Sprintf("%-14s %s", f.Check, f.Found)
		if f.Advice != "" {
			line += "\n" + strings.Repeat(" ", 20) + "-> " + f.Advice
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	if failed {
		return cli.Quiet("a check failed")
	}
	return nil
}
