// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBashWithoutPackage completes in a bash that has nothing of the package bash-completion.
func TestBashWithoutPackage(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("SKIPPED: no bash")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "dpclass")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+mainVariable+"=yes exec "+self+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rules.yaml", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"dpclass pol":                   "policy",
		"dpclass policy ap":             "apply",
		"dpclass policy conf":           "confirm",
		"dpclass flows --filt":          "--filter",
		"dpclass attach --mode ":        "auto native tc",
		"dpclass attach --mode=na":      "native",
		"dpclass policy check ":         "rules.yaml",
		"dpclass flows --filter categ":  "category:",
		"dpclass policy init diffserv ": "",
	} {
		script := `source <(dpclass completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
read -r -a COMP_WORDS <<<"$1"; [[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
__start_dpclass
for reply in "${COMPREPLY[@]}"; do echo "${reply%% *}"; done`
		cmd := exec.Command(bash, "--norc", "--noprofile", "-c", script, "bash", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.Join(strings.Fields(string(out)), " "); err != nil || strings.ReplaceAll(got, "--mode=", "") != want {
			t.Errorf("%q: got %q, want %q: %v", line, got, want, err)
		}
	}
}
