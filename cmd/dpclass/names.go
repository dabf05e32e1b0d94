// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/internal/cli"
)

// newNamesCommand returns `dpclass names` with its verbs.
func newNamesCommand(g *cli.Globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "names",
		Short: "Look up server names in the catalogue of services, and check names files",
		Long: `The catalogue says which application and category a server name belongs to. A
"strong" name decides the verdict; a "weak" one is only shown.

Files in ` + namesDir + ` ($` + namesDirVariable + ` names another directory) and those
of --names add to the built-in catalogue and override it. A line of such a file has an
application, a category, "weak" for a name that decides nothing, and rules:

  intranet   web                 intranet.example wiki.example
  our-cdn    web           weak  cdn.example
  backup     file-transfer       full:vault.example regexp:^s3-[0-9]+\.backup\.example$
  netflix    streaming           v2fly:PATH          # a list in v2fly's format
  - scdn.co                                          # removes a rule of earlier files`,
		Example: `  dpclass names lookup www.youtube.com
  dpclass names list --category voip
  dpclass names check mine.txt`,
		Args: cli.NoVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNamesLookupCommand(g), newNamesListCommand(g), newNamesCheckCommand(g))
	return cmd
}

// where is the place of a rule.
func where(s names.Service) string { return s.File + ":" + strconv.Itoa(s.Line) }
