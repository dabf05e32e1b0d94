// SPDX-License-Identifier: Apache-2.0

// Package cli is what the command lines of dpclass and dplab share: global flags,
// argument checks, exit codes, errors with advice, JSON output, completion, progress
// and signals. It knows no verb.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/netns"
)

// The exit codes of every verb.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Globals holds the values of the flags that are common to the verbs.
type Globals struct {
	Netns   string // name of a network namespace, "" for the current one
	Library string // path of ONNX Runtime's library, "" to search for it
	Output  string // table or json
	Verbose bool

	// Alone says that this process runs nothing else than the verb, which may so take away
	// rights from the whole process.
	Alone bool

	// started is set once a verb's own code runs. An error before that is a usage
	// error.
	started bool
}

// JSON reports whether -o json is set.
func (g *Globals) JSON() bool { return g.Output == "json" }

// Logger returns a logger that writes to w; format is text or json.
func (g *Globals) Logger(w io.Writer, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if g.Verbose {
		options.Level = slog.LevelDebug
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(asciiControls{w}, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// InNetns runs fn in the network namespace of --netns.
func (g *Globals) InNetns(fn func() error) error {
	if g.Netns == "" {
		return fn()
	}
	return netns.InNamed(g.Netns, fn)
}

// Setup completes the root command of a program: the flags -o and -v, --version, the
// help command and error handling. Call it after adding the verbs.
func (g *Globals) Setup(root *cobra.Command) {
	root.Version = ReadBuild().String()
	root.SilenceUsage, root.SilenceErrors = true, true
	root.Args = NoVerb
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetVersionTemplate(root.Name() + " {{.Version}}\n")
	g.Output = "table"
	flags := root.PersistentFlags()
	flags.VarP(&Choice{&g.Output, []string{"table", "json"}}, "output", "o", "output format")
	flags.BoolVarP(&g.Verbose, "verbose", "v", false, "log debug messages")
	Complete(root, "output", "table", "json")
	root.SetHelpCommand(newHelpCommand())
	root.SetFlagErrorFunc(flagError)
	g.watchStart(root)
}

// NetnsFlag adds --netns to a command and those below it.
func (g *Globals) NetnsFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&g.Netns, "netns", "", "work in the network namespace `NAME` (as ip netns lists it)")
	CompleteFunc(cmd, "netns", completeNetns)
}

// LibraryFlag adds --onnxruntime to a command and those below it.
func (g *Globals) LibraryFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&g.Library, "onnxruntime", "",
		"`FILE` of the ONNX Runtime library (default: $DPCLASS_ONNXRUNTIME, then next to the program, then the system's)")
}

// watchStart makes every verb set started when its own code runs.
func (g *Globals) watchStart(cmd *cobra.Command) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			g.started = true
			return inner(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		g.watchStart(child)
	}
}

// Execute runs a program with the arguments and returns the exit code. Errors are
// printed to errOut.
func (g *Globals) Execute(ctx context.Context, root *cobra.Command, args []string, in io.Reader, out, errOut io.Writer) int {
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	completeWithoutPackage(root, args, out)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitDone
	}
	var usage usageError
	if !g.started || errors.As(err, &usage) {
		printError(errOut, root.Name(), err)
		fmt.Fprintf(errOut, "  run \"%s --help\" for how to use it\n", cmd.CommandPath())
		return ExitUsage
	}
	switch {
	case IsQuiet(err):
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintf(errOut, "%s: interrupted\n", root.Name())
	default:
		printError(errOut, root.Name(), err)
	}
	return ExitFailed
}

// Main runs a program with the process's arguments, streams and signals, and ends
// the process.
func (g *Globals) Main(root *cobra.Command) {
	g.Alone = true
	ctx, stop := untilSignal()
	code := g.Execute(ctx, root, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// newHelpCommand is cobra's help command, but with an error for an unknown verb.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				if found == nil || len(rest) == 0 {
					return Usagef("unknown command %q", strings.Join(args, " "))
				}
				return unknownVerb(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			found.InitDefaultVersionFlag()
			return found.Help()
		},
	}
}
