// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyInitCommand(g *cli.Globals) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "init [TEMPLATE]",
		Short: "Print a commented policy file to start from",
		Long: `Print a commented policy file to start from. Without a name, list the templates.
It changes nothing and needs no privileges.`,
		Example: "  dpclass policy init\n  dpclass policy init diffserv\n  dpclass policy init diffserv --out policy.yaml",
		Args:    cli.Between(0, "TEMPLATE"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, t := range policy.Templates() {
				names = append(names, t.Name+"\t"+t.Summary)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if out != "" {
					return cli.Usagef("--out needs the name of a template")
				}
				return listTemplates(g, cmd.OutOrStdout())
			}
			template, err := policy.FindTemplate(args[0])
			if err != nil {
				return err
			}
			if out == "" {
				_, err := cmd.OutOrStdout().Write(template.Text())
				return err
			}
			if err := writeNew(out, template.Text()); err != nil {
				return err
			}
			if g.JSON() {
				return nil
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: written; read it, change it, then: dpclass policy check %s\n", out, out)
			return err
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "`FILE` to write instead of standard output; it must not exist")
	cli.CompleteFunc(cmd, "out", completePolicyFiles)
	return cmd
}

func listTemplates(g *cli.Globals, out io.Writer) error {
	templates := policy.Templates()
	if g.JSON() {
		return cli.PrintJSON(out, templates...)
	}
	columns := []tui.Column[policy.Template]{
		{Title: "TEMPLATE", Cell: func(t policy.Template) tui.Cell { return tui.Cell{Text: t.Name} }},
		{Title: "CONTENT", Cell: func(t policy.Template) tui.Cell { return tui.Cell{Text: t.Summary} }},
	}
	for _, line := range tui.Table(columns, templates, tui.WantColor(out), 0) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes a file that does not exist yet. Nothing is left of a file that could
// not be written whole.
func writeNew(name string, data []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fmt.Sprintf("%q exists already", name), "choose another name, or remove the file first")
	}
	if err != nil {
		return fmt.Errorf("policy file %q: %w", name, pathReason(err))
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("policy file %q: %w", name, pathReason(err)), os.Remove(name))
	}
	return nil
}
