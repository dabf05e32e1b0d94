// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
)

// noNamesDir keeps a test from reading the machine's names files.
func noNamesDir(t *testing.T) {
	t.Helper()
	t.Setenv(namesDirVariable, filepath.Join(t.TempDir(), "missing"))
}

func TestNamesLookup(t *testing.T) {
	noNamesDir(t)
	code, out, errOut := call(t, "", "names", "lookup", "www.youtube.com", "WWW.GOOGLE.COM.")
	if code != cli.ExitDone || errOut != "" {
		t.Errorf("exit %d: %s", code, errOut)
	}
	lines := strings.Split(out, "\n")
	for i, want := range []string{
		"NAME APP CATEGORY STRENGTH RULE WHERE",
		"www.youtube.com youtube streaming strong youtube.com (built in):",
		"WWW.GOOGLE.COM. google web weak google.com (built in):",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("line %d: %q, want %q", i, got, want)
		}
	}
	code, out, errOut = call(t, "", "names", "lookup", "netflix.com", "a\x1b[1m.example")
	if code != cli.ExitFailed || errOut != "" || !strings.Contains(out, `a\x1b[1m.example`) || !strings.Contains(out, "(not listed)") {
		t.Errorf("exit %d: %q %q", code, out, errOut)
	}
	code, out, _ = call(t, "", "names", "lookup", "-o", "json", "netflix.com", "no.example")
	lines = strings.Split(out, "\n")
	if code != cli.ExitFailed || len(lines) != 3 || lines[1] != `{"name":"no.example","listed":false}` {
		t.Errorf("exit %d: %s", code, out)
	}
	var answer map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &answer); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"name": "netflix.com", "listed": true, "app": "netflix", "category": "streaming", "strength": "strong", "suffix": "netflix.com", "file": "(built in)"} {
		if answer[key] != want {
			t.Errorf("%s is %v, want %v", key, answer[key], want)
		}
	}
	if line, ok := answer["line"].(float64); !ok || line < 1 {
		t.Errorf("line %v", answer["line"])
	}
}

func TestNamesFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(namesDirVariable, dir)
	if err := os.WriteFile(filepath.Join(dir, "10-site"), []byte("site web youtube.com one.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own := write(t, "own", "mine chat one.example\n- netflix.com\n")
	second := write(t, "second", "ours voip two.example\n")
	code, out, errOut := call(t, "", "names", "lookup", "youtube.com", "one.example", "two.example", "netflix.com", "--names", own, "--names", second)
	if code != cli.ExitFailed || errOut != "" {
		t.Errorf("exit %d: %s", code, errOut)
	}
	for i, want := range []string{"site web", "mine chat", "ours voip", "- -"} {
		if got := strings.Join(strings.Fields(strings.Split(out, "\n")[i+1])[1:3], " "); got != want {
			t.Errorf("line %d: %q, want %q", i+1, got, want)
		}
	}
	if !strings.Contains(out, own+":1") {
		t.Errorf("the file is not named:\n%s", out)
	}
	bad := write(t, "bad", "a wbe x.example\nb\n")
	code, out, errOut = call(t, "", "names", "lookup", "youtube.com", "--names", bad)
	if code != cli.ExitFailed || out != "" || !strings.Contains(errOut, bad+":1: ") || !strings.Contains(errOut, bad+":2: ") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	checkError(t, errOut)
}

func TestNamesList(t *testing.T) {
	noNamesDir(t)
	code, out, _ := call(t, "", "names", "list", "--app", "netflix")
	if code != cli.ExitDone || !strings.Contains(out, "nflxvideo.net") || strings.Contains(out, "youtube") {
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, _ = call(t, "", "names", "list", "--category", "voip", "-o", "json")
	for line := range strings.Lines(out) {
		if !strings.Contains(line, `"category":"voip"`) {
			t.Errorf("%s", line)
		}
	}
	if code != cli.ExitDone || strings.Count(out, "\n") < 50 {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out, _ := call(t, "", "names", "list"); code != cli.ExitDone || strings.Count(out, "\n") < 1500 {
		t.Errorf("exit %d, %d lines", code, strings.Count(out, "\n"))
	}
	code, _, errOut := call(t, "", "names", "list", "--app", "netflux")
	if code != cli.ExitFailed || !strings.Contains(errOut, `no rule of netflux; did you mean "netflix"?`) {
		t.Errorf("exit %d: %s", code, errOut)
	}
	checkError(t, errOut)
	code, _, errOut = call(t, "", "names", "list", "--app", "netflix", "--category", "voip")
	if code != cli.ExitFailed || !strings.Contains(errOut, "no rule of netflix voip") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestNamesCheck(t *testing.T) {
	noNamesDir(t)
	good := write(t, "good", "mine chat one.example youtube.com\n- netflix.com no.example\n")
	code, out, errOut := call(t, "", "names", "check", good)
	want := "warning: " + good + ":2: removes no.example, which no earlier file has\n"
	if code != cli.ExitDone || errOut != "" || !strings.HasPrefix(out, want) ||
		!strings.HasSuffix(out, good+": rules: 2, applications: 1, rules overridden: 1, removed: 1\n") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	code, out, _ = call(t, "", "names", "check", good, "-o", "json")
	if lines := strings.Split(out, "\n"); code != cli.ExitDone || len(lines) != 3 || !strings.HasPrefix(lines[0], `{"level":"warning","file":"`) ||
		!strings.HasSuffix(lines[1], `,"rules":2,"apps":1,"overridden":1,"removed":1}`) {
		t.Errorf("exit %d: %s", code, out)
	}
	bad := write(t, "bad", "a wbe x.example\nb\n")
	code, out, errOut = call(t, "", "names", "check", good, bad)
	if code != cli.ExitFailed || errOut != "" || strings.Contains(out, "rules:") ||
		!strings.HasPrefix(out, bad+":1: unknown category \"wbe\"; did you mean \"web\"?\n  write one of ") || !strings.Contains(out, bad+":2: ") {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	code, out, _ = call(t, "", "names", "check", bad, "-o", "json")
	if lines := strings.Split(out, "\n"); code != cli.ExitFailed || len(lines) != 3 || !strings.Contains(lines[0], `"level":"error"`) ||
		!strings.Contains(lines[1], `"line":2,"problem":"1 words; want at least 3","advice":"write: application`) {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out, _ := call(t, "", "names", "check", filepath.Join(t.TempDir(), "missing")); code != cli.ExitFailed || !strings.Contains(out, "no such file") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestNamesUsage(t *testing.T) {
	noNamesDir(t)
	for _, args := range []string{"names lookup", "names check", "names list x", "names list --category wbe", "names list --category vpn-voip", "names nothing"} {
		code, out, errOut := call(t, "", strings.Fields(args)...)
		if code != cli.ExitUsage || out != "" {
			t.Errorf("%s: exit %d: %s%s", args, code, out, errOut)
		}
		checkError(t, errOut)
	}
}

func TestNamesCompletion(t *testing.T) {
	noNamesDir(t)
	for flag, want := range map[string]string{"--app": "netflix", "--category": "voip"} {
		code, out, _ := call(t, "", cobra.ShellCompRequestCmd, "names", "list", flag, "")
		if code != cli.ExitDone || !slices.Contains(strings.Split(out, "\n"), want) {
			t.Errorf("%s: exit %d, no %q in %d bytes", flag, code, want, len(out))
		}
	}
}
