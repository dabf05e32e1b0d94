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
		Long: `Remove the programs, flows and policy from the interfaces, and end the agent that
serves them, with its other interfaces. An agent that does not end within 10 seconds
is killed. It is not an error if nothing is attached to an interface, but a name that
neither an interface nor pins have is one. --all detaches every interface
in every network namespace.`,
		Example:           "  dpclass detach eth0\n  dpclass detach veth1 --netns lab\n  dpclass detach --all",
		Args:              allOrInterfaces(g, &all),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			say := func(done loader.Detached) error {
				if g.JSON() {
					return nil
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), detachedText(done))
				return err
			}
			if all {
				done, err := loader.DetachAll(cmd.Context())
				for _, one := range done {
					err = errors.Join(err, say(one))
				}
				return err
			}
			return g.InNetns(func() error {
				var problems []error
				for _, name := range args {
					done, err := loader.Detach(cmd.Context(), name)
					if err == nil {
						err = say(done)
					}
					problems = append(problems, err)
				}
				return errors.Join(problems...)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "detach every interface in every network namespace")
	return cmd
}

// detachedText says what was done about an interface.
func detachedText(done loader.Detached) string {
	if !done.Attached {
		return fault.Printable(done.Iface) + ": nothing was attached"
	}
	text := fault.Printable(done.Iface) + ": detached"
	switch {
	case done.Killed:
		text += fmt.Sprintf("; its agent, process %d, did not end when asked to, and was killed", done.Agent)
	case done.Resumed:
		text += fmt.Sprintf("; its agent, process %d, was stopped, and was continued to end", done.Agent)
	}
	return text
}
