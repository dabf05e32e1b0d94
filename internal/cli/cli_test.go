// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/fault"
)

// run executes a program with the verb "do", which returns the error.
func run(ctx context.Context, err error, args ...string) (code int, out, errOut string) {
	g := &Globals{}
	root := &cobra.Command{Use: "program", Short: "A program"}
	do := &cobra.Command{Use: "do [THING]", Args: Between(0, "THING"), RunE: func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintln(cmd.OutOrStdout(), "done", g.JSON())
		return err
	}}
	root.AddCommand(do, Group("group", "A group", "A group.", ""), NewVersionCommand(g, "program"))
	g.Setup(root)
	var stdout, stderr bytes.Buffer
	code = g.Execute(ctx, root, args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestExecute(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	const usage = "  run \"program do --help\" for how to use it\n"
	failure := fault.New("no such flow", "list the flows")
	for _, test := range []struct {
		name   string
		ctx    context.Context
		err    error
		args   string
		code   int
		errOut string
	}{
		{"done", nil, nil, "do", ExitDone, ""},
		{"failed", nil, errors.New("no"), "do", ExitFailed, "program: no\n"},
		{"advice", nil, fmt.Errorf("set: %w", failure), "do", ExitFailed, "program: set: no such flow\n  list the flows\n"},
		{"foreign text", nil, errors.New("line one\n\tline two"), "do", ExitFailed, "program: line one line two\n"},
		{"two", nil, errors.Join(failure, errors.New("b")), "do", ExitFailed, "program: no such flow\n  list the flows\nprogram: b\n"},
		{"wrapped two", nil, fmt.Errorf("both: %w, %w", failure, errors.New("b")), "do", ExitFailed, "program: both: no such flow, b\n  list the flows\n"},
		{"many", nil, errors.Join(failure, errors.Join(errors.New("b"), errors.New("c")), errors.New("d"), errors.New("e")), "do", ExitFailed,
			"program: no such flow\n  list the flows\nprogram: b\nprogram: c\n  and 2 more\n"},
		{"quiet", nil, Quiet("said already"), "do", ExitFailed, ""},
		{"usage", nil, Usagef("want %d", 1), "do", ExitUsage, "program: want 1\n" + usage},
		{"usage with advice", nil, Usage(failure), "do", ExitUsage, "program: no such flow\n  list the flows\n" + usage},
		{"argument", nil, nil, "do it twice", ExitUsage, "program: unexpected argument \"twice\"\n" + usage},
		{"flag", nil, nil, "do --nosuch", ExitUsage, "program: unknown flag: --nosuch\n" + usage},
		{"flag that is near", nil, nil, "do --outptu json", ExitUsage, "program: unknown flag: --outptu; did you mean \"--output\"?\n" + usage},
		{"format", nil, nil, "do -o xml", ExitUsage,
			"program: invalid argument \"xml\" for \"-o, --output\" flag: want one of table, json\n" + usage},
		{"interrupted", canceled, fmt.Errorf("read: %w", context.Canceled), "do", ExitFailed, "program: interrupted\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.ctx == nil {
				test.ctx = context.Background()
			}
			code, _, errOut := run(test.ctx, test.err, strings.Fields(test.args)...)
			if code != test.code || errOut != test.errOut {
				t.Errorf("exit %d\n%swant %d\n%s", code, errOut, test.code, test.errOut)
			}
		})
	}
}

func TestVerbs(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		want string // in the output or the error
	}{
		{"", ExitDone, "Available Commands:"},
		{"--version", ExitDone, "program "},
		{"version", ExitDone, "program "},
		{"do -o json", ExitDone, "done true"},
		{"d", ExitUsage, `unknown command "d"; did you mean "do"?`},
		{"versio", ExitUsage, `unknown command "versio"; did you mean "version"?`},
		{"help gruop", ExitUsage, `unknown command "gruop"; did you mean "group"?`},
		{"group", ExitUsage, "a command is missing"},
		{"help do", ExitDone, "program do [THING] [flags]"},
		{"help nosuch", ExitUsage, `unknown command "nosuch"`},
	} {
		code, out, errOut := run(context.Background(), nil, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(out+errOut, test.want) {
			t.Errorf("%q: exit %d, want %d with %q:\n%s%s", test.args, code, test.code, test.want, out, errOut)
		}
	}
	var build Build
	_, out, _ := run(context.Background(), nil, "version", "-o", "json")
	if err := json.Unmarshal([]byte(out), &build); err != nil || build.Version == "" || !strings.HasPrefix(build.Go, "go") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRowPrinter(t *testing.T) {
	for format, want := range map[string]string{"table": "NUMBER\n<1>\n<2>\n", "json": "1\n2\n"} {
		var out bytes.Buffer
		show := RowPrinter(&Globals{Output: format}, &out, "NUMBER", func(n int) string { return fmt.Sprintf("<%d>", n) })
		if err := errors.Join(show(1), show(2)); err != nil || out.String() != want {
			t.Errorf("%s: %v: %q", format, err, out.String())
		}
	}
}

func TestChoice(t *testing.T) {
	value := "table"
	c := Choice{&value, []string{"table", "json"}}
	if err := c.Set("json"); err != nil || value != "json" {
		t.Error(err, value)
	}
	if err := c.Set("xml"); err == nil || value != "json" {
		t.Error("taken")
	}
	if got := c.Type(); got != "table|json" {
		t.Error(got)
	}
}
