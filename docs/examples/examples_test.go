// SPDX-License-Identifier: Apache-2.0

// Package examples has no code. Its test applies the patches in this folder to a copy of
// the source and tries what they add.
package examples

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A change is a worked example.
type change struct {
	patch    string
	files    int      // hand-written files that it may touch at most
	generate []string // packages whose generated files depend on it
	needs    string   // program that generating needs, "" for Go alone
	try      []string // arguments of dpclass
	stdin    string
	want     string // in what dpclass prints
}

var changes = []change{
	{
		patch: "action.patch", files: 5, generate: []string{"./loader"}, needs: "clang",
		try:   []string{"policy", "check", "-"},
		stdin: "version: 1\nrules:\n  - match: {category: voip}\n    action: {tc_index: 7}\n",
		want:  "tc_index 7 when sent",
	},
	{
		patch: "label.patch", files: 1, generate: []string{"./flow"},
		try:   []string{"policy", "check", "-"},
		stdin: "version: 1\nrules:\n  - match: {category: gaming}\n    action: {dscp: AF41}\n",
		want:  "category is gaming",
	},
	{
		patch: "protocol.patch", files: 3, generate: []string{"./loader"}, needs: "clang",
		try:   []string{"policy", "check", "-"},
		stdin: "version: 1\nrules:\n  - match: {category: voip}\n    action: {dscp: EF}\nprotect: [udplite/5000]\n",
		want:  "udplite/5000",
	},
	{
		patch: "exporter.patch", files: 1,
		try: []string{"attach", "--help"}, want: "text|csv|json",
	},
	{
		patch: "transport.patch", files: 5, generate: []string{"./loader"}, needs: "clang",
		try: []string{"version"}, want: "dpclass",
	},
}

func TestPatches(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: each example builds dpclass")
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = filepath.Join(runtime.GOROOT(), "bin", "go")
	}
	patches, err := filepath.Glob("*.patch")
	if err != nil || len(patches) != len(changes) {
		t.Errorf("patches %v, %v: each needs a row in this test", patches, err)
	}
	for _, c := range changes {
		t.Run(strings.TrimSuffix(c.patch, ".patch"), func(t *testing.T) {
			if c.needs != "" {
				if _, err := exec.LookPath(c.needs); err != nil {
					t.Skipf("SKIPPED: there is no %s here (make deps-generate installs it)", c.needs)
				}
			}
			patch, err := filepath.Abs(c.patch)
			if err != nil {
				t.Fatal(err)
			}
			if touched := files(t, patch); len(touched) > c.files {
				t.Errorf("it touches %d hand-written files, at most %d are wanted: %v", len(touched), c.files, touched)
			}
			dir := t.TempDir()
			copySource(t, "../..", dir)
			in := func(stdin, name string, args ...string) string {
				t.Helper()
				cmd := exec.Command(name, args...)
				cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
				cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false -trimpath")
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
				}
				return string(out)
			}
			in("", "git", "apply", patch)
			if len(c.generate) > 0 {
				in("", tool, append([]string{"generate"}, c.generate...)...)
			}
			in("", tool, "build", "-o", "dpclass", "./cmd/dpclass")
			if out := in(c.stdin, filepath.Join(dir, "dpclass"), c.try...); !strings.Contains(out, c.want) {
				t.Errorf("dpclass %s: no %q in\n%s", strings.Join(c.try, " "), c.want, out)
			}
		})
	}
}

// files lists the files that a patch touches.
func files(t *testing.T, patch string) []string {
	t.Helper()
	text, err := os.ReadFile(patch)
	if err != nil {
		t.Fatal(err)
	}
	var touched []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "+++ b/"); ok {
			touched = append(touched, name)
		}
	}
	return touched
}

// copySource copies what building dpclass needs.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	top := []string{"agent", "bpf", "classifier", "cmd", "flow", "internal", "loader", "models", "policy"}
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		first, _, deeper := strings.Cut(below, string(filepath.Separator))
		switch {
		case entry.IsDir() && below != "." && !slices.Contains(top, first), below == filepath.Join("models", "paper"):
			return fs.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(to, below), 0o755)
		case !deeper && first != "go.mod" && first != "go.sum":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, below), data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
