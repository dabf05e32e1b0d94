// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

func newBenchMemoryCommand(g *cli.Globals) *cobra.Command {
	var options bench.MemoryOptions
	cmd := &cobra.Command{
		Use:   "memory",
		Short: "Measure time and memory of dpclass with many flows",
		Long: `Run dpclass on many flows and measure how long it takes and how much memory it
needs at most:
  classify-2m      classify a made-up capture of 2 million flows of one packet
  flows-100k       print a table of 100,000 decided flows of an interface; half a
                   second of the time is the pause between two reads
  flows-100k-json  the same with -o json, which reads once
The cases with live flows need root.`,
		Example: "  dplab bench memory --case classify-2m\n  sudo dplab bench memory -o json",
		Args:    cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkCases(options.Cases, bench.MemoryCases()); err != nil {
				return err
			}
			if options.Program == "" {
				own, err := os.Executable()
				if err != nil {
					return err
				}
				options.Program = filepath.Join(filepath.Dir(own), "dpclass")
			}
			options.Library, options.Log = g.Library, g.Logger(cmd.ErrOrStderr(), "text")
			print := cli.RowPrinter[bench.MemoryResult](g, cmd.OutOrStdout(),
				benchTitles("%-16s %10s %9s %8s", "CASE", "FLOWS", "SECONDS", "MB"),
				func(r bench.MemoryResult) string {
					return fmt.Sprintf("%-16s %10d %9.2f %8.0f", r.Case, r.Flows, r.Seconds, r.MB)
				})
			return interrupted(cmd.Context(), bench.Memory(cmd.Context(), options, print))
		},
	}
	cmd.Flags().StringArrayVar(&options.Cases, "case", nil, "measure only the `CASE`; may be given more than once (default: all)")
	cmd.Flags().StringVar(&options.Program, "program", "", "`FILE` of dpclass (default: next to dplab)")
	cli.CompleteFunc(cmd, "case", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return bench.MemoryCases(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}
