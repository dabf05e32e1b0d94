// SPDX-License-Identifier: Apache-2.0

// Package model finds models and checks them against their manifests: versions,
// labels and the hash of the file. It does not run them: ONNX Runtime checks inputs
// and outputs when the classifier opens a model.
package model

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bounded"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/models"
)

// Default is the name of the model that is built into the program. It is used if no
// other was chosen.
const Default = "default"

// The ends of the file names of a model.
const (
	networkSuffix  = ".onnx"
	manifestSuffix = ".json"
)

// The largest files that are read, in bytes. The largest of the paper's networks has 20 MB.
const (
	maxNetwork  = 512 << 20
	maxManifest = 1 << 20
)

// ErrTaskTwice is wrapped by the error for two models of the same task.
var ErrTaskTwice = errors.New("have a task in common")

// Model is a network and its manifest. The manifest has the hash of the network.
type Model struct {
	Manifest
	Path string // path of the .onnx file; "" for the model that is built in
	onnx []byte
}

// ONNX returns the bytes of the .onnx file. They must not be changed.
func (m *Model) ONNX() []byte { return m.onnx }

// Size is the size of the .onnx file in bytes.
func (m *Model) Size() int { return len(m.onnx) }

// Has reports whether the model gives verdicts on the task.
func (m *Model) Has(task flow.Task) bool { return slices.Contains(m.Task, task) }

// Dirs returns the directories in which models are found by name, relative to the
// binary's directory: ../share/dpclass/models, where `make install` puts them, and
// ../models/paper, where a checkout has them.
func Dirs() []string {
	binary, err := os.Executable()
	if err != nil {
		return nil
	}
	if target, err := filepath.EvalSymlinks(binary); err == nil {
		binary = target
	}
	prefix := filepath.Dir(filepath.Dir(binary))
	return []string{filepath.Join(prefix, "share", "dpclass", "models"), filepath.Join(prefix, "models", "paper")}
}

// search returns the directories to look in.
func search(dirs []string) []string {
	if len(dirs) == 0 {
		return Dirs()
	}
	return dirs
}

// Shipped lists the names that Load finds: the built-in model first, then the models
// in the given directories, or in those of [Dirs] if none is given.
func Shipped(dirs ...string) []string {
	var found []string
	for _, dir := range search(dirs) {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue // most often one of the two does not exist
		}
		for _, file := range files {
			if name, ok := strings.CutSuffix(file.Name(), networkSuffix); ok && flow.ValidName(name) && name != Default {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	return append([]string{Default}, slices.Compact(found)...)
}

// IsFile reports whether Load treats its argument as a path rather than a name.
func IsFile(nameOrFile string) bool {
	return strings.HasSuffix(nameOrFile, networkSuffix) || strings.ContainsRune(nameOrFile, filepath.Separator)
}

// Load reads a model: FILE.onnx with its manifest FILE.json next to it, or a name.
// "default" is built in; Load searches for other names in the given directories, or in
// those of [Dirs] if none is given. A bad manifest or a wrong hash is an error.
func Load(nameOrFile string, dirs ...string) (*Model, error) {
	if IsFile(nameOrFile) {
		return load(bounded.ReadFile, nameOrFile, nameOrFile)
	}
	m, err := loadNamed(nameOrFile, search(dirs))
	if err == nil && m.Name != nameOrFile {
		err = fault.Advise(fmt.Errorf("model %q: its manifest has \"name\" %q", nameOrFile, m.Name), "rename the files to the name of the model")
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func loadNamed(name string, dirs []string) (*Model, error) {
	if name == Default {
		builtIn := func(file string, _ int64) ([]byte, error) { return models.Files.ReadFile(file) }
		return load(builtIn, name+networkSuffix, "")
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, name+networkSuffix)
		if _, err := os.Stat(file); err == nil {
			return load(bounded.ReadFile, file, file)
		}
	}
	return nil, fault.Advise(fmt.Errorf("model %q not found in %s", name, strings.Join(dirs, ", ")),
		"name one of %s, or give the path of a .onnx file with its .json next to it", strings.Join(Shipped(dirs...), ", "))
}

// LoadAll reads several models, or the default if none is named. Two models with a task
// in common are an error. It searches the same directories as [Load].
func LoadAll(namesOrFiles []string, dirs ...string) ([]*Model, error) {
	if len(namesOrFiles) == 0 {
		namesOrFiles = []string{Default}
	}
	loaded := make([]*Model, 0, len(namesOrFiles))
	for _, name := range namesOrFiles {
		m, err := Load(name, dirs...)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, m)
	}
	if err := CheckTasks(loaded); err != nil {
		return nil, err
	}
	return loaded, nil
}

// CheckTasks reports two models that have a task in common; the error wraps
// [ErrTaskTwice].
func CheckTasks(loaded []*Model) error {
	for _, task := range flow.Tasks {
		var first *Model
		for _, m := range loaded {
			switch {
			case !m.Has(task):
			case first != nil:
				return fault.Advise(fmt.Errorf("models %q and %q %w: %s", first.Name, m.Name, ErrTaskTwice, task),
					"name one model for each task, or one that has both")
			default:
				first = m
			}
		}
	}
	return nil
}

// NewLabels lists the labels of the models that have no fixed number in
// flow.Vocabulary, in a stable order. The kernel's label table needs them in addition
// to the vocabulary.
func NewLabels(loaded []*Model) []string {
	var names []string
	for _, m := range loaded {
		for _, task := range m.Task {
			for _, label := range m.Labels[task] {
				if !slices.Contains(flow.Vocabulary, label) && !slices.Contains(names, label) {
					names = append(names, label)
				}
			}
		}
	}
	return names
}

// load reads a model with the given function and sets Model.Path to path.
func load(read func(file string, limit int64) ([]byte, error), file, path string) (*Model, error) {
	stem, ok := strings.CutSuffix(file, networkSuffix)
	if !ok {
		return nil, fault.Advise(fmt.Errorf("model %q: its name does not end in .onnx", file),
			"give the .onnx file; its manifest is the .json file next to it")
	}
	manifestFile := stem + manifestSuffix
	onnx, err := read(file, maxNetwork)
	if err != nil {
		return nil, fault.Advise(fmt.Errorf("model %q: %w", file, fileReason(err)),
			"give the path of a .onnx file, or the name of a shipped model (dpclass models list)")
	}
	text, err := read(manifestFile, maxManifest)
	if err != nil {
		return nil, fault.Advise(fmt.Errorf("model %q: its manifest %q: %w", file, manifestFile, fileReason(err)),
			"put the model's manifest next to it")
	}
	manifest, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("model manifest %q: %w", manifestFile, err)
	}
	sum := sha256.Sum256(onnx)
	if got := hex.EncodeToString(sum[:]); !strings.EqualFold(got, manifest.SHA256) {
		return nil, fault.Advise(fmt.Errorf("model %q: its sha256 is %s, its manifest %q says %s", file, got, manifestFile, strings.ToLower(manifest.SHA256)),
			"the file was changed or cut off: copy both again from where the model came from")
	}
	return &Model{Manifest: *manifest, Path: path, onnx: onnx}, nil
}

// fileReason removes the path from a file error, because the caller's message has it.
func fileReason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// Stored is a model as it passes between processes.
type Stored struct {
	Manifest Manifest
	Path     string // Model.Path
	ONNX     []byte // Model.ONNX
}

// Store returns what Restore makes the model from again. They share the bytes of the network.
func (m *Model) Store() Stored { return Stored{m.Manifest, m.Path, m.onnx} }

// Restore returns a model that another process has loaded and so checked.
func Restore(s Stored) *Model { return &Model{Manifest: s.Manifest, Path: s.Path, onnx: s.ONNX} }
