// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzChoice: what is read from a file with a choice of models is what writing it again
// gives.
func FuzzChoice(f *testing.F) {
	for _, seed := range []string{"cnn-app\ncnn-traffic\n", "# written\n/opt/mine.onnx", "\r\n \t\n", "a\x00b", ""} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		file, again := filepath.Join(dir, "model"), filepath.Join(dir, "again")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		choice, err := readChoice([]string{file})
		if err != nil {
			if len(text) <= maxChoice {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for _, name := range choice.Models {
			if name == "" || strings.ContainsRune(name, '\n') || name != strings.TrimSpace(name) || strings.HasPrefix(name, "#") {
				t.Errorf("model %q", name)
			}
		}
		if err := writeChoice(again, choice.Models); err != nil {
			t.Fatal(err)
		}
		if same, err := readChoice([]string{again}); err != nil && len(text) < maxChoice-100 || err == nil && !slices.Equal(same.Models, choice.Models) {
			t.Errorf("%q becomes %q, %v", choice.Models, same.Models, err)
		}
	})
}
