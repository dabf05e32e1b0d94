// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyApplyCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "apply IFACE FILE",
		Short: "Enforce a policy on an attached interface",
		Long: `Check the policy file and enforce it on the interface instead of the policy that is
there now, all of it or nothing. A file with an error changes nothing. "-" reads standard
input. The SSH connection that applies the policy is protected, also under sudo and in
tmux or screen; it is printed.`,
		Example:           "  dpclass policy apply eth0 policy.yaml\n  sed s/20mbit/5mbit/ policy.yaml | dpclass policy apply eth0 -",
		Args:              cli.Exactly("IFACE", "FILE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeInterface(g, args[0], func(iface *loader.Pins) error {
				apps, err := catalogueApps(&nameFiles{})
				if err != nil {
					return err
				}
				models, err := runningModels(iface)
				if err != nil {
					return err
				}
				p, err := readPolicy(cmd, args[1], iface.Labels(), append(models, policy.WithApps(apps))...)
				if err != nil {
					return err
				}
				if err := protectSSH(cmd, p); err != nil {
					return err
				}
				if err := iface.Rules().Set(p); err != nil {
					return fmt.Errorf("policy on %q: %w", args[0], err)
				}
				if g.JSON() {
					return nil
				}
				out := cmd.OutOrStdout()
				if _, err = fmt.Fprintf(out, "%s: policy in force, %d rules\n", args[0], len(p.Rules)); err != nil {
					return err
				}
				for _, key := range p.Flows {
					if _, err := fmt.Fprintf(out, "never dropped or policed: the SSH connection %q\n", key); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
