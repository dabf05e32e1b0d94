// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
	"github.com/dpclass/dpclass/internal/tui"
)

func newNamesListCommand(g *cli.Globals) *cobra.Command {
	var files nameFiles
	var app, category string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rules of the catalogue",
		Long: `List the rules of the catalogue by application, with the line of the file that each
is in.`,
		Example: `  dpclass names list --app netflix
  dpclass names list --category voip -o json`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if category != "" && !slices.Contains(names.AllowedCategories, category) {
				return cli.Usagef("unknown category %q%s; want one of %s", category, near.Hint(category, names.AllowedCategories),
					strings.Join(names.AllowedCategories, ", "))
			}
			catalogue, err := files.load()
			if err != nil {
				return err
			}
			return listNames(cmd.OutOrStdout(), g, catalogue, app, category)
		},
	}
	files.flag(cmd)
	cmd.Flags().StringVar(&app, "app", "", "only rules of the application `A`")
	cmd.Flags().StringVar(&category, "category", "", "only rules of the category `C`")
	cli.Complete(cmd, "category", names.AllowedCategories...)
	cli.CompleteFunc(cmd, "app", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		catalogue, err := files.load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return catalogue.Apps(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func listNames(out io.Writer, g *cli.Globals, catalogue *names.Catalogue, app, category string) error {
	services := slices.DeleteFunc(catalogue.Services(), func(s names.Service) bool {
		return app != "" && s.App != app || category != "" && s.Category != category
	})
	if len(services) == 0 {
		what := strings.TrimSpace(app + " " + category)
		return fault.New(fmt.Sprintf("no rule of %s%s", what, near.Hint(app, catalogue.Apps())), "\"dpclass names list\" shows all rules")
	}
	if g.JSON() {
		return cli.PrintJSON(out, services...)
	}
	table := tabwriter.NewWriter(tui.Safe(out), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "APP\tCATEGORY\tSTRENGTH\tRULE\tWHERE")
	for _, s := range services {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.App, s.Category, s.Strength, s.Suffix, where(s))
	}
	return table.Flush()
}
