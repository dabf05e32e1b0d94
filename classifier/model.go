// SPDX-License-Identifier: Apache-2.0

package classifier

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
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/models"
)

// DefaultModel is the shipped model that is used where nobody chose another.
const DefaultModel = "default"

// inputName is the name of a model's input.
const inputName = "packet"

// Model is a network that was checked against its manifest.
type Model struct {
	Manifest
	Path string // of the .onnx file; "" for a shipped model
	data []byte
}

// Size is the size of the .onnx file in bytes.
func (m *Model) Size() int { return len(m.data) }

// Has tells whether the model gives a verdict on the task.
func (m *Model) Has(task flow.Task) bool { return slices.Contains(m.Task, task) }

// Shipped lists the names of the shipped models, the default first.
func Shipped() []string {
	files, _ := fs.Glob(models.Files, "*.onnx") // the pattern is well-formed
	names := make([]string, 0, len(files))
	for _, file := range files {
		names = append(names, strings.TrimSuffix(file, ".onnx"))
	}
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == DefaultModel:
			return -1
		case b == DefaultModel:
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

// LoadModel reads a shipped model by its name, or a FILE.onnx that has its
// manifest FILE.json beside it, and checks hash, versions, shapes and labels.
func LoadModel(nameOrFile string) (*Model, error) {
	if isFile(nameOrFile) {
		return loadModel(os.ReadFile, nameOrFile, nameOrFile)
	}
	if !slices.Contains(Shipped(), nameOrFile) {
		return nil, fmt.Errorf("no model %q is shipped; there are: %s\nname one of these, or the path of a .onnx file with its .json beside it",
			nameOrFile, strings.Join(Shipped(), ", "))
	}
	m, err := loadModel(models.Files.ReadFile, nameOrFile+".onnx", "")
	if err == nil && m.Name != nameOrFile {
		err = fmt.Errorf("model %q: its manifest has \"name\" %q", nameOrFile, m.Name)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// isFile tells a path from the name of a shipped model.
func isFile(nameOrFile string) bool {
	return strings.HasSuffix(nameOrFile, ".onnx") || strings.ContainsRune(nameOrFile, filepath.Separator)
}

// LoadModels reads the models of a command line: those named, or the one of
// 'dpclass models use', or the default. No two may have a task in common.
func LoadModels(namesOrFiles []string) ([]*Model, error) {
	if len(namesOrFiles) == 0 {
		chosen, err := Chosen()
		if err != nil {
			return nil, err
		}
		if len(chosen.Models) == 0 {
			chosen.Models = []string{DefaultModel}
		}
		namesOrFiles = chosen.Models
	}
	loaded := make([]*Model, 0, len(namesOrFiles))
	for _, name := range namesOrFiles {
		m, err := LoadModel(name)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, m)
	}
	if err := checkTasks(loaded); err != nil {
		return nil, err
	}
	return loaded, nil
}

// ErrTaskTwice is wrapped by the error for two models of the same task.
var ErrTaskTwice = errors.New("have a task in common")

func checkTasks(loaded []*Model) error {
	for _, task := range flow.Tasks {
		var first *Model
		for _, m := range loaded {
			switch {
			case !m.Has(task):
			case first != nil:
				return fmt.Errorf("models %q and %q %w: %s\nname one model for each task, or one that has both", first.Name, m.Name, ErrTaskTwice, task)
			default:
				first = m
			}
		}
	}
	return nil
}

// NewLabels lists the labels of the models that have no fixed id in
// flow.Vocabulary, in a stable order: what the kernel's label table needs
// beyond it.
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

// loadModel reads a model with the given function; path is what Model.Path is to be.
func loadModel(read func(string) ([]byte, error), file, path string) (*Model, error) {
	manifestFile := strings.TrimSuffix(file, ".onnx") + ".json"
	if !strings.HasSuffix(file, ".onnx") {
		return nil, fmt.Errorf("model %q: not named .onnx\ngive the .onnx file; its manifest is the .json file beside it", file)
	}
	data, err := read(file)
	if err != nil {
		return nil, fmt.Errorf("model %q: %w\ngive the path of a .onnx file, or the name of a shipped model: %s",
			file, fileReason(err), strings.Join(Shipped(), ", "))
	}
	text, err := read(manifestFile)
	if err != nil {
		return nil, fmt.Errorf("model %q: its manifest %q: %w\nput the manifest that belongs to the model beside it", file, manifestFile, fileReason(err))
	}
	manifest, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("model manifest %q: %w", manifestFile, err)
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); !strings.EqualFold(got, manifest.SHA256) {
		return nil, fmt.Errorf("model %q: its sha256 is %s,\nits manifest %q says %s\nthe file was changed or cut: copy both again from where the model came from",
			file, got, manifestFile, strings.ToLower(manifest.SHA256))
	}
	m := &Model{Manifest: *manifest, Path: path, data: data}
	if err := m.checkGraph(); err != nil {
		return nil, fmt.Errorf("model %q: %w", file, err)
	}
	return m, nil
}

// fileReason takes the path out of a file error: the caller's message has it.
func fileReason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// checkGraph holds the inputs and outputs of the network against the contract
// and the manifest.
func (m *Model) checkGraph() error {
	const export = "export it with input \"packet\" uint8 [N,1500] and softmax outputs \"category\" and/or \"app\" float32 [N,labels]"
	inputs, outputs, err := readONNX(m.data)
	if err != nil {
		return fmt.Errorf("%w\ncopy it again, or export it again", err)
	}
	if len(inputs) != 1 || inputs[0].name != inputName {
		return fmt.Errorf("its inputs are %s\n%s", valueNames(inputs), export)
	}
	in := inputs[0]
	if in.elem != elemUint8 {
		return fmt.Errorf("its input %q is %s\n%s", in.name, elemName(in.elem), export)
	}
	if len(in.dims) != 2 || in.dims[1] != vector.Size {
		return fmt.Errorf("its input %q has shape %s\n%s", in.name, in.shape(), export)
	}
	if in.dims[0] >= 0 {
		return fmt.Errorf("its input %q has shape %s: the number of packets is fixed\nexport it with a dynamic first axis", in.name, in.shape())
	}
	for _, task := range m.Task {
		i := slices.IndexFunc(outputs, func(v onnxValue) bool { return v.name == task.String() })
		if i < 0 {
			return fmt.Errorf("it has no output %q, which its manifest names in \"task\"; its outputs are %s\n%s", task, valueNames(outputs), export)
		}
		out := outputs[i]
		if out.elem != elemFloat {
			return fmt.Errorf("its output %q is %s\n%s", task, elemName(out.elem), export)
		}
		// A width that the exporter left open is checked when the model is run.
		if len(out.dims) != 2 {
			return fmt.Errorf("its output %q has shape %s\n%s", task, out.shape(), export)
		}
		if width := out.dims[1]; width >= 0 && int(width) != len(m.Labels[task]) {
			return fmt.Errorf("its output %q is %d wide, its manifest has %d labels for it\nlist one label for each output, in output order", task, width, len(m.Labels[task]))
		}
	}
	return nil
}

func valueNames(values []onnxValue) string {
	if len(values) == 0 {
		return "none"
	}
	names := make([]string, 0, len(values))
	for _, v := range values {
		names = append(names, fmt.Sprintf("%q", v.name))
	}
	return strings.Join(names, ", ")
}
