// SPDX-License-Identifier: Apache-2.0

// Command dpclass classifies the flows of a network interface with neural
// networks and enforces a policy on them in the kernel.
package main

import (
	_ "time/tzdata" // a policy's time_zone works on systems without zones

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
)

func main() {
	g := &cli.Globals{}
	g.Main(newRootCommand(g))
}

// newRootCommand returns dpclass with all its verbs.
func newRootCommand(g *cli.Globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "dpclass",
		Short: "Classify the flows of a network interface and enforce a policy on them in the kernel",
		Long: `dpclass watches a network interface from the kernel (eBPF), decides what each
flow is with neural networks that read the first packets, shows the verdicts and
enforces a policy: pass, drop, police, mark with a DSCP.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  dpclass attach eth0                       # watch and classify until Ctrl-C
  dpclass flows eth0 --watch                # a live table of flows
  dpclass policy apply eth0 policy.yaml     # enforce a policy
  dpclass classify capture.pcap             # offline: needs no root and no interface`,
	}
	root.AddCommand(
		newAttachCommand(g),
		newDetachCommand(g),
		newReloadCommand(g),
		newRecordCommand(g),
		newStatusCommand(g),
		newFlowsCommand(g),
		newPolicyCommand(g),
		newClassifyCommand(g),
		newExplainCommand(g),
		newEvalCommand(g),
		newDatasetCommand(),
		newModelsCommand(g),
		newNamesCommand(g),
		newDoctorCommand(g),
		newModelReaderCommand(g),
		cli.NewVersionCommand(g, "dpclass"),
	)
	g.NetnsFlag(root)
	g.LibraryFlag(root)
	g.Setup(root)
	return root
}
