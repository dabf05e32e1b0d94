// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// completeInterfaces completes names of interfaces that are not named yet.
func completeInterfaces(g *globals) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		err := g.inNetns(func() error {
			all, err := net.Interfaces()
			for _, iface := range all {
				if !slices.Contains(args, iface.Name) {
					names = append(names, iface.Name)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeAttached completes the first argument with attached interfaces, and
// the next ones as rest says.
func completeAttached(g *globals, rest cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, rest
		}
		var names []string
		err := g.inNetns(func() (err error) {
			names, err = loader.List()
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeLabels completes labels of one task.
func completeLabels(labels []string) cobra.CompletionFunc {
	return cobra.FixedCompletions(append(slices.Clone(labels), flow.Unknown), cobra.ShellCompDirectiveNoFileComp)
}
