// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes of every verb.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// globals are the flags that stand on every verb.
type globals struct {
	netns       string
	onnxruntime string
	output      string // table or json
	verbose     bool

	// started is set once a verb's own code runs: an error before that is one
	// of usage.
	started bool
}

// json tells whether one JSON object a line is wanted.
func (g *globals) json() bool { return g.output == "json" }

// logger returns a logger to w in the format text or json.
func (g *globals) logger(w io.Writer, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if g.verbose {
		options.Level = slog.LevelDebug
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// usageError is an error in how a verb was called: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usagef makes a usageError.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// quietError ends a verb with exit code 1 and without a message: what is wrong
// was printed already as the verb's result.
type quietError struct{ error }

// choice is a flag that takes one of a few words.
type choice struct {
	value *string
	words []string
}

func (c choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c choice) Type() string { return strings.Join(c.words, "|") }

func (c choice) Set(word string) error {
	for _, known := range c.words {
		if word == known {
			*c.value = word
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(c.words, ", "))
}

// newRootCommand returns dpclass with all its verbs.
func newRootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "dpclass",
		Short: "Classify the flows of a network interface and enforce a policy on them in the kernel",
		Long: `dpclass watches a network interface from the kernel (eBPF), decides what each
flow is with neural networks that read the first packets, shows the verdicts and
enforces a policy: pass, drop, police, mark with a DSCP.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  dpclass attach eth0                       # watch and classify until Ctrl-C
  dpclass flows eth0 --watch                # a live table of flows
  dpclass policy apply eth0 policy.yaml     # enforce
  dpclass classify capture.pcap             # offline: no root, no NIC`,
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	g.output = "table"
	flags := root.PersistentFlags()
	flags.StringVar(&g.netns, "netns", "", "work in this network namespace (a name of `ip netns`)")
	flags.StringVar(&g.onnxruntime, "onnxruntime", "", "ONNX Runtime's `library` (default: $DPCLASS_ONNXRUNTIME, beside the binary, the system's)")
	flags.VarP(choice{&g.output, []string{"table", "json"}}, "output", "o", "output format")
	flags.BoolVarP(&g.verbose, "verbose", "v", false, "log more")
	mustComplete(root, "output", "table", "json")
	mustCompleteFunc(root, "netns", completeNetns)

	root.AddCommand(
		newAttachCommand(g),
		newDetachCommand(g),
		newStatusCommand(g),
		newFlowsCommand(g),
		newPolicyCommand(g),
		newClassifyCommand(g),
		newEvalCommand(g),
		newDatasetCommand(g),
		newModelsCommand(g),
		newDoctorCommand(g),
		newBenchCommand(g),
		newVersionCommand(g),
	)
	root.SetHelpCommand(newHelpCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	watchStart(root, g)
	return root
}

// watchStart notes, for every verb, that its own code runs.
func watchStart(cmd *cobra.Command, g *globals) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			g.started = true
			return inner(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		watchStart(child, g)
	}
}

// noVerb refuses an argument in the place of a verb.
func noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("unknown command %q; did you mean %q?", args[0], near[0])
	}
	return usagef("unknown command %q", args[0])
}

// newGroupCommand returns a verb that only has verbs below it.
func newGroupCommand(use, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use: use + " COMMAND", Short: short, Long: long, Example: example,
		Args: noVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names []string
			for _, child := range cmd.Commands() {
				names = append(names, child.Name())
			}
			return usagef("a command is missing: one of %s", strings.Join(names, ", "))
		},
	}
}

// newHelpCommand is cobra's help command, but with an error for an unknown verb.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about a command",
		Example: "  dpclass help policy apply",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("unknown command %q", strings.Join(args, " "))
			}
			found.InitDefaultHelpFlag()
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}
}

// exactly returns an argument check that names what is missing.
func exactly(names ...string) cobra.PositionalArgs { return between(len(names), names...) }

// between returns an argument check for at least n and at most all of the named
// arguments.
func between(n int, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// execute runs dpclass with the arguments and returns the exit code.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	g := &globals{}
	root := newRootCommand(g)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var usage usageError
	if !g.started || errors.As(err, &usage) {
		fmt.Fprintf(errOut, "dpclass: %s\nrun \"%s --help\" for how to use it\n", shorten(err.Error(), maxErrorLines-1), cmd.CommandPath())
		return exitUsage
	}
	var quiet quietError
	if !errors.As(err, &quiet) {
		fmt.Fprintf(errOut, "dpclass: %s\n", shorten(err.Error(), maxErrorLines))
	}
	return exitFailed
}

// maxErrorLines is the number of lines that an error may have.
const maxErrorLines = 4

// shorten cuts a text to a number of lines.
func shorten(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) > lines {
		all = append(all[:lines-1], fmt.Sprintf("(and %d lines more)", len(all)-lines+1))
	}
	return strings.Join(all, "\n")
}

// mustComplete sets the words that a flag is completed with.
func mustComplete(cmd *cobra.Command, flag string, words ...string) {
	mustCompleteFunc(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// mustCompleteFunc sets the completion of a flag. It fails only for a flag that
// does not exist, which is a mistake in this package.
func mustCompleteFunc(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
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
