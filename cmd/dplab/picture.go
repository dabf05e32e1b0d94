// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/picture"
)

func newPictureCommand() *cobra.Command {
	var part picture.Part
	cmd := &cobra.Command{
		Use:   "picture",
		Short: "Turn a terminal's output into an SVG picture",
		Long: `Read a program's terminal output from standard input, and write it to standard
output as an SVG picture with its text and colours. Output to the alternate screen,
such as the live table, is left out. The picture keeps an unseen note of the default
model and of the flow table's columns, so that a test can tell when it is out of date.`,
		Example: "  script -qec \"dplab demo\" typescript\n  dplab picture --from \"==> A policy\" < typescript > policy.svg",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if part.Note, err = picture.Origin(); err != nil {
				return err
			}
			return part.Draw(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&part.From, "from", "", "begin with the line that contains this `TEXT`")
	flags.StringVar(&part.To, "to", "", "end before the line that contains this `TEXT`")
	flags.IntVar(&part.Width, "width", 100, "cut lines to this number of columns")
	return cmd
}
