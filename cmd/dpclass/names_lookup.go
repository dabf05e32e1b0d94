// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

// nameAnswer is what -o json prints for a name. A name that is not listed has no
// service.
type nameAnswer struct {
	Name   string `json:"name"`
	Listed bool   `json:"listed"`
	*names.Service
}

func newNamesLookupCommand(g *cli.Globals) *cobra.Command {
	var files nameFiles
	cmd := &cobra.Command{
		Use:   "lookup NAME...",
		Short: "Show what the catalogue says about server names",
		Long: `Show the application, category and strength of server names, and the line of the
file that says so. The exit code is 1 if a name is not listed.`,
		Example: `  dpclass names lookup www.youtube.com
  dpclass names lookup vault.example --names mine.txt -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("NAME is missing")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			catalogue, err := files.load()
			if err != nil {
				return err
			}
			return lookUpNames(cmd.OutOrStdout(), g, catalogue, args)
		},
	}
	files.flag(cmd)
	return cmd
}

func lookUpNames(out io.Writer, g *cli.Globals, catalogue *names.Catalogue, args []string) error {
	answers := make([]nameAnswer, len(args))
	var missing error
	for i, name := range args {
		answers[i].Name = name
		if service, ok := catalogue.Lookup(name); ok {
			answers[i].Listed, answers[i].Service = true, &service
		} else {
			missing = cli.Quiet(name + " is not listed")
		}
	}
	if g.JSON() {
		if err := cli.PrintJSON(out, answers...); err != nil {
			return err
		}
		return missing
	}
	table := tabwriter.NewWriter(tui.Safe(out), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tAPP\tCATEGORY\tSTRENGTH\tRULE\tWHERE")
	for _, answer := range answers {
		if !answer.Listed {
			fmt.Fprintf(table, "%s\t-\t-\t-\t(not listed)\t-\n", tui.Printable(answer.Name))
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", tui.Printable(answer.Name), answer.App, answer.Category, answer.Strength,
			answer.Suffix, where(*answer.Service))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return missing
}
