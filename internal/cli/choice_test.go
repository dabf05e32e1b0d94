// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestModelChoice(t *testing.T) {
	dir := t.TempDir()
	own, system := filepath.Join(dir, "own", "model"), filepath.Join(dir, "system")
	none, err := readChoice([]string{own, system})
	if err != nil || none.File != "" || none.Models != nil {
		t.Errorf("without a file: %+v, %v", none, err)
	}
	if err := writeChoice(system, []string{"cnn-app"}); err != nil {
		t.Fatal(err)
	}
	if err := writeChoice(own, []string{"cnn-app", "/models/mine.onnx"}); err != nil {
		t.Fatal(err)
	}
	choice, err := readChoice([]string{own, system})
	if err != nil || choice.File != own || !slices.Equal(choice.Models, []string{"cnn-app", "/models/mine.onnx"}) {
		t.Errorf("%+v, %v", choice, err)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if choice, err = readChoice([]string{own, system}); err != nil || choice.File != system {
		t.Errorf("%+v, %v", choice, err)
	}
	if left, err := os.ReadDir(filepath.Dir(own)); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	named, err := ModelsOr([]string{"mine"})
	if err != nil || !slices.Equal(named, []string{"mine"}) {
		t.Errorf("named models give %q, %v", named, err)
	}
}

// TestRootsChoice: with sudo, HOME and XDG_CONFIG_HOME may be those of the user. Root does not look there.
func TestRootsChoice(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	if err := writeChoice(filepath.Join(dir, "dpclass", "model"), []string{"/tmp/hostile.onnx"}); err != nil {
		t.Fatal(err)
	}
	file, err := choiceFile()
	choice, choiceErr := ChosenModels()
	if err != nil || choiceErr != nil {
		t.Fatal(err, choiceErr)
	}
	takes := slices.Contains(choice.Models, "/tmp/hostile.onnx")
	if root := os.Geteuid() == 0; root == takes || root != (file == systemChoice) {
		t.Errorf("root %v: file %q, %+v", root, file, choice)
	}
}
