// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dpclass/dpclass/internal/near"
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

// Number is a flag that takes a number from Min to Max. Its value is 0 if it is not given.
type Number struct {
	Value    *int
	Min, Max int
}

// String returns the number.
func (n *Number) String() string {
	if n.Value == nil {
		return "0"
	}
	return strconv.Itoa(*n.Value)
}

// Type is the name of the value in the help text.
func (n *Number) Type() string { return "N" }

// Set takes a number.
func (n *Number) Set(text string) error {
	number, err := strconv.Atoi(text)
	if err != nil || number < n.Min || number > n.Max {
		return fmt.Errorf("want a number from %d to %d", n.Min, n.Max)
	}
	*n.Value = number
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
	return unknownVerb(cmd, args[0])
}

// unknownVerb is the error of a word that is no command below cmd.
func unknownVerb(cmd *cobra.Command, word string) error {
	var known []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			known = append(known, child.Name())
		}
	}
	return Usagef("unknown command %q%s", word, near.Hint(word, known))
}

// flagError is the error of a flag that could not be read.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var known []string
		note := func(f *pflag.Flag) {
			if !f.Hidden {
				known = append(known, "--"+f.Name)
			}
		}
		cmd.Flags().VisitAll(note)
		cmd.InheritedFlags().VisitAll(note)
		return Usagef("%w%s", err, near.Hint("--"+unknown.GetSpecifiedName(), known))
	}
	return Usage(err)
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
