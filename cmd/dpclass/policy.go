// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/policy"
)

func newPolicyCommand(g *cli.Globals) *cobra.Command {
	cmd := cli.Group("policy", "Begin, check, apply, confirm, show or clear a policy", policy.Help,
		`  dpclass policy init diffserv --out policy.yaml
  dpclass policy check policy.yaml
  dpclass policy apply eth0 policy.yaml
  dpclass policy apply eth0 policy.yaml --confirm 60s
  dpclass policy confirm eth0
  dpclass policy show eth0
  dpclass policy clear eth0`)
	cmd.AddCommand(newPolicyApplyCommand(g), newPolicyConfirmCommand(g), newPolicyShowCommand(g), newPolicyClearCommand(g), newPolicyCheckCommand(g),
		newPolicyInitCommand(g))
	return cmd
}
