// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyApplyCommand(g *cli.Globals) *cobra.Command {
	var dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "apply IFACE FILE",
		Short: "Enforce a policy on an attached interface",
		Long: `Check the policy file and enforce it on the interface instead of the policy that is
there now, all of it or nothing. A file with an error changes nothing. "-" reads standard
input. The SSH connection that applies the policy is protected, also under sudo and in
tmux or screen; it is printed. Rules that were in force before keep their counters and token
buckets.

With --dry-run, the rules count what they would do, and nothing is dropped, policed or marked.
With --confirm 60s, the policy before comes in force again after that time, unless "dpclass policy
confirm" comes first. The kernel does that: it needs neither this terminal nor the agent.`,
		Example:           "  dpclass policy apply eth0 policy.yaml\n  dpclass policy apply eth0 policy.yaml --dry-run\n  dpclass policy apply eth0 policy.yaml --confirm 60s\n  sed s/20mbit/5mbit/ policy.yaml | dpclass policy apply eth0 -",
		Args:              cli.Exactly("IFACE", "FILE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("confirm") && (wait < time.Second || wait > longestWait) {
				return cli.Usagef("--confirm %v; want 1s to %v", wait, longestWait)
			}
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
				p.DryRun = dryRun
				if wait > 0 {
					err = iface.Rules().Try(p, wait)
				} else {
					err = iface.Rules().Set(p)
				}
				if err != nil {
					return fmt.Errorf("policy on %q: %w", args[0], err)
				}
				if g.JSON() {
					return nil
				}
				out := cmd.OutOrStdout()
				state := "policy in force"
				if dryRun {
					state = "dry run, which only counts"
				}
				if _, err = fmt.Fprintf(out, "%s: %s, %d rules\n", args[0], state, len(p.Rules)); err != nil {
					return err
				}
				if wait > 0 {
					if _, err := fmt.Fprintf(out, "the policy before comes back in %v; to keep this one: dpclass policy confirm %s\n", wait, args[0]); err != nil {
						return err
					}
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
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "count what each rule would do, and do nothing")
	cmd.Flags().DurationVar(&wait, "confirm", 0, "take the policy back after this `TIME` unless it is confirmed, such as 60s")
	return cmd
}

// longestWait is the most that --confirm takes.
const longestWait = 24 * time.Hour
