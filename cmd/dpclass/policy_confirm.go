// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
)

func newPolicyConfirmCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm IFACE",
		Short: "Keep the policy that was applied with --confirm",
		Long: `Keep the policy that "dpclass policy apply --confirm" has put in force. It is an error if
none waits for it, because its time is over or it was confirmed already.`,
		Example:           "  dpclass policy confirm eth0",
		Args:              cli.Exactly("IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeInterface(g, args[0], func(iface *loader.Pins) error {
				confirmed, err := iface.Rules().Confirm()
				if err != nil {
					return err
				}
				if !confirmed {
					return fault.Advise(fmt.Errorf("no policy on %q waits to be confirmed", args[0]),
						"see what is in force with: dpclass policy show %s", args[0])
				}
				if g.JSON() {
					return nil
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: the policy stays\n", args[0])
				return err
			})
		},
	}
}
