// SPDX-License-Identifier: Apache-2.0

// Command dplab is for developers: it measures dpclass, and shows it at work on real
// traffic in network namespaces.
package main

import (
	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
)

func main() {
	g := &cli.Globals{}
	g.Main(newRootCommand(g))
}

// newRootCommand returns dplab with all its verbs.
func newRootCommand(g *cli.Globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "dplab",
		Short: "Measure and demonstrate dpclass (for developers)",
		Long: `dplab demonstrates dpclass and measures what it costs. It builds networks out of
network namespaces, runs real programs in them, and removes everything at the end,
also after Ctrl-C. Most commands need root. The machine's own network stays as it is.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  sudo dplab demo                # dpclass on real traffic, in less than a minute
  sudo dplab bench kernel        # what a packet costs, in nanoseconds
  sudo dplab traffic --out traffic  # labelled captures of real programs
  dplab bench classifier         # packets per second of each model`,
	}
	root.AddCommand(newBenchCommand(g), newDemoCommand(), newPictureCommand(), newTrafficCommand(), cli.NewVersionCommand(g, "dplab"))
	g.Setup(root)
	return root
}
