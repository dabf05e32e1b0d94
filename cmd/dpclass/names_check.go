// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

// nameProblem is what -o json prints for a line of a file.
type nameProblem struct {
	Level string `json:"level"` // error or warning
	*names.Problem
}

func newNamesCheckCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check names files",
		Long: `Check names files, and the v2fly lists that they name. Each problem is shown with
file, line and what to do; the exit code is 1 then. For files without problems it
shows how many rules they add, override and remove. The files are read in the given
order over the built-in catalogue; those in ` + namesDir + ` are left out.`,
		Example: `  dpclass names check mine.txt
  dpclass names check ` + namesDir + `/* -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("FILE is missing")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return checkNames(cmd.OutOrStdout(), g, args) },
	}
}

func checkNames(out io.Writer, g *cli.Globals, files []string) error {
	catalogue, err := names.Load(files...)
	if err != nil {
		if err := printNameProblems(out, g, "error", names.Problems(err)); err != nil {
			return err
		}
		return cli.Quiet("there are problems")
	}
	if err := printNameProblems(out, g, "warning", catalogue.Warnings()); err != nil {
		return err
	}
	loaded := catalogue.Files()[1:]
	if g.JSON() {
		return cli.PrintJSON(out, loaded...)
	}
	for _, file := range loaded {
		if _, err := fmt.Fprintf(tui.Safe(out), "%s: rules: %d, applications: %d, rules overridden: %d, removed: %d\n",
			file.Name, file.Rules, file.Apps, file.Overridden, file.Removed); err != nil {
			return err
		}
	}
	return nil
}

// printNameProblems prints problems, each with what to do about it.
func printNameProblems(out io.Writer, g *cli.Globals, level string, problems []*names.Problem) error {
	for _, problem := range problems {
		if g.JSON() {
			if err := cli.PrintJSON(out, nameProblem{level, problem}); err != nil {
				return err
			}
			continue
		}
		text := problem.Error()
		if level != "error" {
			text = level + ": " + text
		}
		if _, err := fmt.Fprintf(tui.Safe(out), "%s\n  %s\n", text, problem.Do); err != nil {
			return err
		}
	}
	return nil
}
