// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
)

func newDetachCommand(g *cli.Globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "detach IFACE... | --all",
		Short: "Detach interfaces and remove everything from the kernel",
		Long: `Remove the programs, flows and policy from the interfaces, and stop the agent that
serves them. It is not an error if nothing is attached. --all detaches every
interface in every network namespace.`,
		Example: "  dpclass detach eth0\n  dpclass detach veth1 --netns lab\n  dpclass detach --all",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return cli.Usagef("--all cannot be used with IFACE")
			case all && g.Netns != "":
				return cli.Usagef("--all covers every network namespace: leave --netns out")
			case all:
				return nil
			}
			return interfaceArgs(cmd, args)
		},
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				return loader.DetachAll(cmd.Context())
			}
			return g.InNetns(func() error {
				var problems []error
				for _, name := range args {
					if err := loader.Detach(cmd.Context(), name); err != nil {
						problems = append(problems, err)
						continue
					}
					if g.JSON() {
						continue
					}
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: detached\n", fault.Printable(name)); err != nil {
						return err
					}
				}
				return errors.Join(problems...)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "detach every interface in every network namespace")
	return cmd
}
