// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"slices"

	"github.com/spf13/cobra"
)

// Complete sets the words that a flag is completed with.
func Complete(cmd *cobra.Command, flag string, words ...string) {
	CompleteFunc(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// CompleteFunc sets the completion of a flag. It panics on a flag that does not exist,
// which is a mistake in the calling verb.
func CompleteFunc(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
	}
}

// CompleteNamesAndFiles completes names that are not yet given, and files.
func CompleteNamesAndFiles(all func() []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		names := slices.DeleteFunc(all(), func(name string) bool { return slices.Contains(args, name) })
		return names, cobra.ShellCompDirectiveDefault
	}
}

// completeNetns completes names of network namespaces.
func completeNetns(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
