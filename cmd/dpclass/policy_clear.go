// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/loader"
)

func newPolicyClearCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "clear IFACE",
		Short: "Remove the policy: every packet passes unchanged",
		Long: `Remove the policy from the interface, so that every packet passes unchanged. It is
not an error if there is none.`,
		Example:           "  dpclass policy clear eth0",
		Args:              cli.Exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeInterface(g, args[0], func(iface *loader.Pins) error {
				if err := iface.Rules().Clear(); err != nil {
					return err
				}
				if g.JSON() {
					return nil
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no policy\n", args[0])
				return err
			})
		},
	}
}
