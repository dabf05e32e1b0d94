// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/loader"
)

func newReloadCommand(g *cli.Globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "reload IFACE... | --all",
		Short: "Have a running agent load its models again",
		Long: `Make the agent of an interface load its models again without detaching: those of its
--model, or those that "dpclass models use" chose. Flows without a final verdict are
sampled again, final verdicts stay. An agent that serves several interfaces changes the
models of all of them.

The models are changed as a whole or not at all: if one cannot be used, has labels that
the interface does not know, or reads more packets of a flow than the interface copies,
the agent continues with those that it has, and the exit code is 1.`,
		Example:           "  sudo dpclass models use ./mine.onnx && sudo dpclass reload eth0\n  dpclass reload --all",
		Args:              allOrInterfaces(g, &all),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := reload(cmd.Context(), g, args)
			for _, agent := range done {
				var failed error
				if g.JSON() {
					failed = cli.PrintJSON(cmd.OutOrStdout(), agent)
				} else {
					_, failed = fmt.Fprintf(cmd.OutOrStdout(), "%s: models %s\n", strings.Join(agent.Ifaces, ", "), strings.Join(agent.Model, ", "))
				}
				err = errors.Join(err, failed)
			}
			if err == nil && len(done) == 0 && !g.JSON() {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "no agent is running")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "reload every agent, in every network namespace")
	return cmd
}

// reload reloads the agents of the named interfaces, without a name every agent.
func reload(ctx context.Context, g *cli.Globals, names []string) (done []loader.Reloaded, err error) {
	if len(names) == 0 {
		return loader.ReloadAll(ctx)
	}
	err = withInterfaces(g, names, func(all []*loader.Pins) (err error) {
		done, err = loader.Reload(ctx, all)
		return err
	})
	return done, err
}
