// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyCommand(g *cli.Globals) *cobra.Command {
	cmd := cli.Group("policy", "Apply, show, clear or check a policy", policy.Help,
		"  dpclass policy check policy.yaml\n  dpclass policy apply eth0 policy.yaml\n  dpclass policy show eth0\n  dpclass policy clear eth0")
	cmd.AddCommand(newPolicyApplyCommand(g), newPolicyShowCommand(g), newPolicyClearCommand(g), newPolicyCheckCommand(g))
	return cmd
}
