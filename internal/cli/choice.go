// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/dpclass/dpclass/internal/bounded"
)

// systemChoice is the file that root's 'models use' writes. It applies to every user
// who has no file of their own.
const systemChoice = "/etc/dpclass/model"

// ModelChoice is the operator's choice of the models that are used if --model is not
// given.
type ModelChoice struct {
	Models []string // names or absolute paths; none: the default
	File   string   // the file with the choice; "" if there is none
}

// choiceFile returns the file that ChooseModels writes for this user.
func choiceFile() (string, error) {
	if os.Geteuid() == 0 {
		return systemChoice, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot store the choice of a model: %w", err)
	}
	return filepath.Join(dir, "dpclass", "model"), nil
}

// ChosenModels returns the choice in effect: the user's own, else the system's.
func ChosenModels() (ModelChoice, error) {
	files := []string{systemChoice}
	if own, err := choiceFile(); err == nil && own != systemChoice {
		files = []string{own, systemChoice}
	}
	return readChoice(files)
}

// ModelsOr returns the models that were named on the command line, else the chosen
// ones. None means the default.
func ModelsOr(named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	choice, err := ChosenModels()
	return choice.Models, err
}

// maxChoice is the largest choice that is read, in bytes.
const maxChoice = 64 << 10

func readChoice(files []string) (ModelChoice, error) {
	for _, file := range files {
		text, err := bounded.ReadFile(file, maxChoice)
		// With sudo or a service's user, HOME may be somebody else's.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && file != systemChoice {
			continue
		}
		if err != nil {
			return ModelChoice{}, fmt.Errorf("chosen model: %q: %w", file, err)
		}
		choice := ModelChoice{File: file}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				choice.Models = append(choice.Models, line)
			}
		}
		return choice, nil
	}
	return ModelChoice{}, nil
}

// ChooseModels writes the choice, names or absolute paths, and returns the file. The
// caller has checked the models.
func ChooseModels(models []string) (string, error) {
	file, err := choiceFile()
	if err != nil {
		return "", err
	}
	return file, writeChoice(file, models)
}

// ChoiceScope says for whom the choice in a file takes effect, as a sentence for people.
func ChoiceScope(file string) string {
	if file != systemChoice {
		return "this is your own choice: agents that root starts, as with sudo, do not see it (use \"sudo dpclass models use\" for those)"
	}
	text := "it applies to root, also with sudo, and to every user without a choice of their own"
	caller, err := user.Lookup(os.Getenv("SUDO_USER"))
	if err != nil {
		return text
	}
	own := filepath.Join(caller.HomeDir, ".config", "dpclass", "model")
	if _, err := os.Stat(own); err == nil {
		text += "; " + caller.Username + " has one: " + own
	}
	return text
}

// writeChoice replaces the file atomically: an agent may read it at any time.
func writeChoice(file string, models []string) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("choice of a model: %w", err)
	}
	text := "# written by 'dpclass models use'\n" + strings.Join(models, "\n") + "\n"
	temporary := filepath.Join(dir, ".model.new")
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return fmt.Errorf("choice of a model: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return fmt.Errorf("choice of a model: %w", errors.Join(err, os.Remove(temporary)))
	}
	return nil
}

// ResetModels removes this user's choice. It returns the file that it removed, "" if
// there was none.
func ResetModels() (string, error) {
	file, err := choiceFile()
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
