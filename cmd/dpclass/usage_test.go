// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
)

func TestFlowsUsage(t *testing.T) {
	for _, args := range []string{
		"flows --filter prt:1", "flows --sort size", "flows --limit -1", "flows --watch -o json", "flows --interval 1ms", "flows eth0 eth1",
		"flows set eth0", "flows set eth0 nonsense --category voip",
	} {
		code, _, errOut := call(t, "", strings.Fields(args)...)
		if code != cli.ExitUsage {
			t.Errorf("%s: exit %d: %s", args, code, errOut)
		}
		checkError(t, errOut)
	}
	if code, _, errOut := call(t, "", "flows", "set", "eth0", "tcp 10.0.0.1:1 10.0.0.2:2"); code != cli.ExitUsage || !strings.Contains(errOut, "give --category") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestRecordUsage(t *testing.T) {
	for _, args := range []string{
		"record --out x", "record eth0", "record eth0 eth1 --out x", "record eth0 --out x --by pid", "record eth0 --out x --snap 10",
		"record eth0 --out x --packets -1", "record eth0 --out x --duration -1s", "record eth0 --out x --max-size 10parsecs",
		"record eth0 --out x --max-size 0", "record eth0 --out x --task both", "record eth0 --out x --names y",
	} {
		code, out, errOut := call(t, "", strings.Fields(args)...)
		if code != cli.ExitUsage || out != "" {
			t.Errorf("%s: exit %d: %s%s", args, code, out, errOut)
		}
		checkError(t, errOut)
	}
	bad := write(t, "map.yaml", "firefox: web\nssh remote\n")
	code, _, errOut := call(t, "", "record", "eth0", "--out", t.TempDir(), "--map", bad)
	if code != cli.ExitFailed || !strings.Contains(errOut, `line 2: "ssh remote" is not PATTERN: LABEL`) {
		t.Errorf("exit %d: %s", code, errOut)
	}
	checkError(t, errOut)
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "1": 1, "500MB": 500e6, "2GB": 2e9, "1GiB": 1 << 30, "1.5k": 1500, "10 kB": 10e3} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"-1", "0", "x", "1XB", "MB", "1e30GB", "NaN"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestAttachUsage(t *testing.T) {
	for _, args := range []string{
		"attach", "attach lo lo", "attach lo --mode generic", "attach lo --direction up", "attach lo --samples 300", "attach lo --samples -1",
		"attach lo --samples 0", "classify x.pcap --samples 0", "eval --samples 0", "flows --filter category=voip", "flows --filter voip||chat=",
		"classify x.pcap --filter category:viop",
		"attach lo --min-confidence 2", "attach lo --no-classify --model default", "attach lo --log-format xml",
		"detach", "detach --all lo", "detach --all --netns x", "status a b", "policy apply eth0", "policy show", "policy clear", "policy check",
	} {
		code, out, errOut := call(t, "", strings.Fields(args)...)
		if code != cli.ExitUsage || out != "" {
			t.Errorf("%s: exit %d: %s%s", args, code, out, errOut)
		}
		checkError(t, errOut)
	}
	bad := write(t, "bad.yaml", "version: 3\n")
	if code, _, errOut := call(t, "", "attach", "no-such-iface", "--no-classify", "--policy", bad); code != cli.ExitFailed || !strings.Contains(errOut, "bad.yaml:1:10") {
		t.Errorf("the policy is not checked first: exit %d: %s", code, errOut)
	}
}

// TestHelpOfNetns: the help of every verb says what --netns takes.
func TestHelpOfNetns(t *testing.T) {
	for _, verb := range newRootCommand(&cli.Globals{}).Commands() {
		if !verb.IsAvailableCommand() {
			continue
		}
		if _, out, _ := call(t, "", verb.Name(), "--help"); !strings.Contains(out, "--netns NAME") {
			t.Errorf("%s:\n%s", verb.Name(), out)
		}
	}
}

func TestCheckLabel(t *testing.T) {
	beyond := append(append([]string{}, flow.Vocabulary...), "gaming", "tiktok")
	for name, ok := range map[string]bool{"": true, "voip": true, "unknown": true, "gaming": true, "skype": false, "tiktok": false, "viop": false} {
		err := checkLabel(flow.Category, name, beyond, []string{"tiktok"})
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if name == "viop" && !strings.Contains(err.Error(), `did you mean "voip"?`) {
			t.Errorf("%v", err)
		}
	}
}
