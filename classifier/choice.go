// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// systemChoice is the file that root's 'models use' writes, and that holds for
// everybody who has no choice of his own.
const systemChoice = "/etc/dpclass/model"

// Choice is the operator's choice of the models that are used where --model is
// not given.
type Choice struct {
	Models []string // names or absolute paths; none: the default
	File   string   // that says so; "": no file does
}

// ChoiceFile returns the file that Choose writes for this user.
func ChoiceFile() (string, error) {
	if os.Geteuid() == 0 {
		return systemChoice, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no place for the choice of a model: %w", err)
	}
	return filepath.Join(dir, "dpclass", "model"), nil
}

// Chosen returns the choice in effect: the user's own, else the system's.
func Chosen() (Choice, error) {
	files := []string{systemChoice}
	if own, err := ChoiceFile(); err == nil && own != systemChoice {
		files = []string{own, systemChoice}
	}
	return readChoice(files)
}

func readChoice(files []string) (Choice, error) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Choice{}, fmt.Errorf("chosen model: %w", err)
		}
		choice := Choice{File: file}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				choice.Models = append(choice.Models, line)
			}
		}
		return choice, nil
	}
	return Choice{}, nil
}

// Choose writes the choice, after the models have been checked. Paths are kept
// as absolute ones. It returns the file written.
func Choose(namesOrFiles []string) (string, error) {
	loaded := make([]*Model, 0, len(namesOrFiles))
	lines := make([]string, 0, len(namesOrFiles))
	for _, name := range namesOrFiles {
		m, err := LoadModel(name)
		if err != nil {
			return "", err
		}
		loaded = append(loaded, m)
		if m.Path != "" {
			if name, err = filepath.Abs(m.Path); err != nil {
				return "", fmt.Errorf("model %q: %w", m.Path, err)
			}
		}
		lines = append(lines, name)
	}
	if err := checkTasks(loaded); err != nil {
		return "", err
	}
	file, err := ChoiceFile()
	if err != nil {
		return "", err
	}
	return file, writeChoice(file, lines)
}

// writeChoice replaces the file as a whole: an agent may read it at any time.
func writeChoice(file string, lines []string) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("choice of a model: %w", err)
	}
	text := "# written by 'dpclass models use'\n" + strings.Join(lines, "\n") + "\n"
	temporary := filepath.Join(dir, ".model.new")
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return fmt.Errorf("choice of a model: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return fmt.Errorf("choice of a model: %w", errors.Join(err, os.Remove(temporary)))
	}
	return nil
}

// ResetChoice takes the choice back. It returns the file removed, "" where
// there was none.
func ResetChoice() (string, error) {
	file, err := ChoiceFile()
	if err != nil {
		return "", err
	}
	err = os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("choice of a model: %w", err)
	}
	return file, nil
}
