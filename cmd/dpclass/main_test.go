// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
)

// call runs dpclass with arguments.
func call(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	g := &cli.Globals{}
	code = g.Execute(context.Background(), newRootCommand(g), args, strings.NewReader(in), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// walk calls fn for every verb of dpclass's own.
func walk(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, child := range cmd.Commands() {
		if child.Name() != "completion" && child.Name() != "help" {
			walk(child, fn)
		}
	}
}

func TestHelp(t *testing.T) {
	walk(newRootCommand(&cli.Globals{}), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			code, out, errOut := call(t, "", append(path, "--help")...)
			if code != cli.ExitDone || errOut != "" {
				t.Errorf("exit %d, %q", code, errOut)
			}
			if cmd.Hidden {
				return // not for people
			}
			if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
				t.Error("short text, long text or example is missing")
			}
			if !strings.Contains(out, "Examples:\n  ") || !strings.Contains(out, "--netns") || !strings.Contains(out, "--output") {
				t.Errorf("help lacks examples or the flags of every verb:\n%s", out)
			}
			for _, line := range strings.Split(cmd.Example, "\n") {
				if line != "" && !strings.HasPrefix(line, "  ") {
					t.Errorf("example %q is not indented", line)
				}
			}
			for _, line := range strings.Split(cmd.Long, "\n") {
				if len(line) > 100 {
					t.Errorf("help is too wide: %q", line)
				}
			}
		})
	})
}

func TestWrongUsage(t *testing.T) {
	walk(newRootCommand(&cli.Globals{}), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			for _, wrong := range []string{"--no-such-flag", "--output=xml"} {
				code, out, errOut := call(t, "", append(path, wrong)...)
				if code != cli.ExitUsage || out != "" {
					t.Errorf("%s: exit %d, out %q", wrong, code, out)
				}
				checkError(t, errOut)
			}
			if cmd.HasSubCommands() && cmd.Name() != "flows" {
				if code, _, errOut := call(t, "", append(path, "nosuchverb")...); code != cli.ExitUsage {
					t.Errorf("unknown verb: exit %d, %q", code, errOut)
				}
			}
		})
	})
}

// maxErrorLines is the number of lines that errors may have with their advice.
const maxErrorLines = 10

// checkError checks the output against the rules for errors.
func checkError(t *testing.T, text string) {
	t.Helper()
	if !strings.HasPrefix(text, "dpclass: ") || !strings.HasSuffix(text, "\n") {
		t.Errorf("error %q", text)
	}
	// One line for each error, and what to do below it.
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i > 0 && !strings.HasPrefix(line, "dpclass: ") && !strings.HasPrefix(line, "  ") {
			t.Errorf("line %d is neither an error nor advice: %s", i+1, text)
		}
	}
	if lines := strings.Count(text, "\n"); lines > maxErrorLines {
		t.Errorf("error of %d lines: %s", lines, text)
	}
	if strings.Contains(text, "goroutine") {
		t.Errorf("stack trace: %s", text)
	}
}

func TestRoot(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		want string // in the output or the error
	}{
		{"", cli.ExitDone, "Available Commands:"},
		{"--version", cli.ExitDone, "dpclass "},
		{"version", cli.ExitDone, "dpclass "},
		{"version -o json", cli.ExitDone, `{"version":"`},
		{"-o json version", cli.ExitDone, `{"version":"`},
		{"version extra", cli.ExitUsage, `unexpected argument "extra"`},
		{"versio", cli.ExitUsage, `did you mean "version"?`},
		{"help version", cli.ExitDone, "dpclass version [flags]"},
		{"help nosuch", cli.ExitUsage, `unknown command "nosuch"`},
		{"completion bash", cli.ExitDone, "__dpclass"},
		{"completion zsh", cli.ExitDone, "compdef"},
		{"completion fish", cli.ExitDone, "fish"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, out, errOut := call(t, "", strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(out+errOut, test.want) {
				t.Errorf("exit %d, want %d with %q:\n%s%s", code, test.code, test.want, out, errOut)
			}
			if code != cli.ExitDone {
				checkError(t, errOut)
			}
		})
	}
}

// write makes a file for a test.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
