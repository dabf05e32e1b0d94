// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/internal/tui"
)

func TestModelsListAndShow(t *testing.T) {
	code, out, errOut := offlineRun(t, "models", "list")
	if code != 0 || !strings.Contains(out, "CAPTURE SPLIT") || !strings.Contains(out, "*  default") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	// The test binary has no models beside it.
	const paper = "../../models/paper"
	names := model.Shipped(paper)
	if len(names) != 5 {
		t.Errorf("models %q, want five", names)
	}
	for _, name := range names {
		m, err := model.Load(name, paper)
		if err != nil {
			t.Fatal(err)
		}
		if m.Path != "" {
			name = m.Path
		}
		code, text, errOut := offlineRun(t, "models", "show", name)
		if code != 0 {
			t.Fatalf("%s: exit %d, %q", name, code, errOut)
		}
		first, _, _ := strings.Cut(text, "\n")
		if got := strings.Fields(first); !slices.Equal(got, []string{"name", m.Name}) {
			t.Errorf("%s: the first line is %q", name, first)
		}
		for _, says := range []string{m.SHA256, "weaknesses\n- ", "licence  ", " split:", "  split"} {
			if !strings.Contains(text, says) {
				t.Errorf("%s: %q is missing in:\n%s", name, says, text)
			}
		}
	}
}

// A manifest cannot control the terminal, nor pretend to be lines of dpclass.
func TestModelsShowHostile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.onnx")
	const hostile = "\x1b[2J\u009b31m\nsha256  fake"
	manifest := map[string]any{
		"format": 1, "vector": 1, "name": "test", "task": []string{"category"}, "labels": map[string]any{"category": []string{"chat", "voip"}},
		"architecture": hostile, "precision": hostile, "licence": hostile, "weaknesses": []string{hostile},
		"training": map[string]any{"split": hostile, "data": []map[string]any{{"set": hostile, "source": hostile, "licence": hostile}}},
		"figures":  map[string]any{hostile: hostile},
	}
	sum := sha256.Sum256([]byte("network"))
	manifest["sha256"] = hex.EncodeToString(sum[:])
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	offlineSave(t, file, []byte("network"))
	offlineSave(t, strings.TrimSuffix(file, ".onnx")+".json", text)
	for _, args := range [][]string{{"models", "show", file}, {"models", "show", file, "-o", "json"}, {"models", "show", file + hostile}} {
		_, out, errOut := offlineRun(t, args...)
		for line := range strings.Lines(out + errOut) {
			if line = strings.TrimSuffix(line, "\n"); line != tui.Printable(line) || strings.HasPrefix(line, "sha256  fake") {
				t.Errorf("%q: %q", args, line)
			}
		}
		if !strings.Contains(out+errOut, "fake") {
			t.Errorf("%q: %q, %q", args, out, errOut)
		}
	}
}
