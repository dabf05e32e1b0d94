// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Choice is a flag that takes one of a few words.
type Choice struct {
	Value *string
	Words []string
}

// String returns the value.
func (c *Choice) String() string {
	if c.Value == nil {
		return ""
	}
	return *c.Value
}

// Type returns the words for the help text.
func (c *Choice) Type() string { return strings.Join(c.Words, "|") }

// Set takes one of the words.
func (c *Choice) Set(word string) error {
	if !slices.Contains(c.Words, word) {
		return fmt.Errorf("want one of %s", strings.Join(c.Words, ", "))
	}
	*c.Value = word
	return nil
}

// Exactly returns an argument check that names what is missing.
func Exactly(names ...string) cobra.PositionalArgs { return Between(len(names), names...) }

// Between returns an argument check for at least n and at most all of the named
// arguments.
func Between(n int, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return Usagef("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return Usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// NoVerb is the argument check of a command that only has commands below it: an
// argument that gets here is an unknown command.
func NoVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return Usagef("unknown command %q; did you mean %q?", args[0], near[0])
	}
	return Usagef("unknown command %q", args[0])
}

// Group returns a command that only has commands below it.
func Group(use, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use: use + " COMMAND", Short: short, Long: long, Example: example,
		Args: NoVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names []string
			for _, child := range cmd.Commands() {
				names = append(names, child.Name())
			}
			return Usagef("a command is missing: one of %s", strings.Join(names, ", "))
		},
	}
}
