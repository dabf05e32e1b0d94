// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// call runs dpclass with arguments.
func call(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = execute(context.Background(), args, strings.NewReader(in), &stdout, &stderr)
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
	walk(newRootCommand(&globals{}), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			code, out, errOut := call(t, "", append(path, "--help")...)
			if code != exitDone || errOut != "" {
				t.Errorf("exit %d, %q", code, errOut)
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
	walk(newRootCommand(&globals{}), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			for _, wrong := range []string{"--no-such-flag", "--output=xml"} {
				code, out, errOut := call(t, "", append(path, wrong)...)
				if code != exitUsage || out != "" {
					t.Errorf("%s: exit %d, out %q", wrong, code, out)
				}
				checkError(t, errOut)
			}
			if cmd.HasSubCommands() && cmd.Name() != "flows" {
				if code, _, errOut := call(t, "", append(path, "nosuchverb")...); code != exitUsage {
					t.Errorf("unknown verb: exit %d, %q", code, errOut)
				}
			}
		})
	})
}

// checkError holds an error against the rules for errors.
func checkError(t *testing.T, text string) {
	t.Helper()
	if !strings.HasPrefix(text, "dpclass: ") || !strings.HasSuffix(text, "\n") {
		t.Errorf("error %q", text)
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
		{"", exitDone, "Available Commands:"},
		{"--version", exitDone, "dpclass "},
		{"version", exitDone, "dpclass "},
		{"version -o json", exitDone, `{"version":"`},
		{"-o json version", exitDone, `{"version":"`},
		{"version extra", exitUsage, `unexpected argument "extra"`},
		{"versio", exitUsage, `did you mean "version"?`},
		{"help version", exitDone, "dpclass version [flags]"},
		{"help nosuch", exitUsage, `unknown command "nosuch"`},
		{"completion bash", exitDone, "__dpclass"},
		{"completion zsh", exitDone, "compdef"},
		{"completion fish", exitDone, "fish"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, out, errOut := call(t, "", strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(out+errOut, test.want) {
				t.Errorf("exit %d, want %d with %q:\n%s%s", code, test.code, test.want, out, errOut)
			}
			if code != exitDone {
				checkError(t, errOut)
			}
		})
	}
}

func TestShorten(t *testing.T) {
	if got := shorten("a\nb\nc\nd\ne\n", 4); got != "a\nb\nc\n(and 2 lines more)" {
		t.Errorf("got %q", got)
	}
	if got := shorten("a\nb\n", 4); got != "a\nb" {
		t.Errorf("got %q", got)
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

func TestNoColorOutsideATerminal(t *testing.T) {
	if wantColor(&bytes.Buffer{}) {
		t.Error("colours into a buffer")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if wantColor(file) {
		t.Error("colours into the null device")
	}
}

func TestChoice(t *testing.T) {
	value := "table"
	c := choice{&value, []string{"table", "json"}}
	if err := c.Set("json"); err != nil || value != "json" {
		t.Error(err, value)
	}
	if err := c.Set("xml"); err == nil || value != "json" {
		t.Error("taken")
	}
	if got := fmt.Sprint(c.Type()); got != "table|json" {
		t.Error(got)
	}
}
