// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault/faulttest"
)

// paper is the folder of the paper's networks.
const paper = "../../models/paper"

// network replaces an .onnx file: this package does not read its content.
var network = []byte("network")

func fittingManifest() map[string]any {
	return map[string]any{
		"format": 1, "vector": 1, "name": "test", "task": []string{"category"},
		"labels": map[string]any{"category": []string{"chat", "voip", "email"}},
	}
}

// write writes a model and its manifest, with the right hash if the manifest has
// none, and returns the .onnx file.
func write(t *testing.T, dir string, manifest map[string]any) string {
	t.Helper()
	if _, ok := manifest["sha256"]; !ok {
		sum := sha256.Sum256(network)
		manifest["sha256"] = hex.EncodeToString(sum[:])
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return writeText(t, dir, text)
}

func writeText(t *testing.T, dir string, manifest []byte) string {
	t.Helper()
	file := filepath.Join(dir, "test.onnx")
	for name, content := range map[string][]byte{file: network, filepath.Join(dir, "test.json"): manifest} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestShipped(t *testing.T) {
	shipped := Shipped(paper)
	if want := []string{"default", "cnn-app", "cnn-traffic", "sae-app", "sae-traffic"}; !slices.Equal(shipped, want) {
		t.Fatalf("shipped are %q, want %q", shipped, want)
	}
	for _, name := range shipped {
		m, err := Load(name, paper)
		if err != nil {
			t.Error(err)
			continue
		}
		if m.Architecture == "" || m.Parameters == 0 || m.MAC == 0 || m.Licence == "" || len(m.Figures) == 0 || len(m.Weaknesses) == 0 || len(m.Training.Data) == 0 {
			t.Errorf("model %q: its manifest leaves something out: %+v", name, m.Manifest)
		}
		if built := m.Path == ""; built != (name == Default) {
			t.Errorf("model %q is of the file %q", name, m.Path)
		}
		for _, task := range m.Task {
			for _, label := range m.Labels[task] {
				if !slices.Contains(task.Labels(), label) {
					t.Errorf("model %q: label %q of %s is not in the vocabulary", name, label, task)
				}
			}
		}
	}
}

// A manifest says itself how samples are joined: the trainer has fitted the
// temperature with these numbers.
func TestShippedManifestsAreComplete(t *testing.T) {
	files, err := filepath.Glob("../../models/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Shipped(paper)[1:] {
		files = append(files, filepath.Join(paper, name+".json"))
	}
	if len(files) != 5 {
		t.Fatalf("manifests %q", files)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"growth", "floor", "samples", "final_confidence", "temperature", "unknown_threshold"} {
			if fields[field] == nil {
				t.Errorf("%s has no %q", file, field)
			}
		}
	}
}

func TestLoadByName(t *testing.T) {
	none, dir, other := filepath.Join(t.TempDir(), "none"), t.TempDir(), t.TempDir()
	file := write(t, dir, fittingManifest())
	write(t, other, fittingManifest())
	if shipped := Shipped(none, dir, other); !slices.Equal(shipped, []string{Default, "test"}) {
		t.Errorf("shipped are %q", shipped)
	}
	m, err := Load("test", none, dir, other)
	if err != nil {
		t.Fatal(err)
	}
	if m.Path != file || m.Name != "test" || string(m.ONNX()) != "network" || m.Size() != 7 {
		t.Errorf("loaded %+v", m)
	}
	_, err = Load("cnn-colour", none, dir)
	faulttest.Want(t, err, `"cnn-colour"`, none, dir, Default+", test")

	// The built-in model cannot be replaced, nor a model be called what it is not.
	for from, to := range map[string]string{"test.onnx": "default.onnx", "test.json": "default.json"} {
		if err := os.Rename(filepath.Join(other, from), filepath.Join(other, to)); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := Load(Default, other); err != nil || m.Path != "" || m.Name != Default {
		t.Errorf("loaded %+v, %v", m, err)
	}
	for from, to := range map[string]string{"default.onnx": "mine.onnx", "default.json": "mine.json"} {
		if err := os.Rename(filepath.Join(other, from), filepath.Join(other, to)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Load("mine", other)
	faulttest.Want(t, err, `"mine"`, `"name" "test"`)
}

// Where no directory is given, those that go with the binary are searched.
func TestDirs(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if binary, err = filepath.EvalSymlinks(binary); err != nil {
		t.Fatal(err)
	}
	prefix := filepath.Dir(filepath.Dir(binary))
	installed, checkout := filepath.Join(prefix, "share/dpclass/models"), filepath.Join(prefix, "models/paper")
	if dirs := Dirs(); !slices.Equal(dirs, []string{installed, checkout}) {
		t.Errorf("directories %q of the binary %q", dirs, binary)
	}
	_, err = Load("cnn-colour")
	faulttest.Want(t, err, installed, checkout)
}

func TestLoadFile(t *testing.T) {
	file := write(t, t.TempDir(), fittingManifest())
	m, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if m.Path != file || m.Name != "test" || !m.Has(flow.Category) || m.Has(flow.App) {
		t.Errorf("loaded %+v", m)
	}
	if m.Samples != flow.DefaultSamples || m.FinalConfidence != DefaultFinalConfidence || m.Temperature[flow.Category] != 1 ||
		m.Growth != DefaultGrowth || m.Floor != DefaultFloor {
		t.Errorf("defaults: %+v", m.Manifest)
	}
	manifest := fittingManifest()
	manifest["growth"], manifest["floor"], manifest["samples"] = 0, 1e-6, 3
	if m, err = Load(write(t, t.TempDir(), manifest)); err != nil || m.Growth != 0 || m.Floor != 1e-6 || m.Samples != 3 {
		t.Errorf("growth 0, floor 1e-6 and 3 samples: %+v, %v", m, err)
	}
}

func TestRefusedManifest(t *testing.T) {
	for _, test := range []struct {
		name string
		set  map[string]any
		want []string
	}{
		{"format", map[string]any{"format": 2}, []string{`"format" is 2`}},
		{"no format", map[string]any{"format": nil}, []string{`"format" is 0`}},
		{"vector", map[string]any{"vector": 7}, []string{`"vector" is 7`, "dataset build"}},
		{"name", map[string]any{"name": "../x"}, []string{`"../x"`}},
		{"hash", map[string]any{"sha256": strings.Repeat("ab", 32)}, []string{"sha256", "abab", "test.json"}},
		{"hash form", map[string]any{"sha256": "12"}, []string{`"sha256" is "12"`}},
		{"no task", map[string]any{"task": []string{}}, []string{`"task" is empty`}},
		{"strange task", map[string]any{"task": []string{"colour"}}, []string{`"colour"`}},
		{"task twice", map[string]any{"task": []string{"category", "category"}}, []string{"twice"}},
		{"task without labels", map[string]any{"task": []string{"category", "app"}}, []string{`"labels"."app"`}},
		{"labels without task", map[string]any{"task": []string{"app"}, "labels": map[string]any{"app": []string{"a", "b"}, "category": []string{"a", "b"}}}, []string{`"category"`}},
		{"one label", map[string]any{"labels": map[string]any{"category": []string{"chat"}}}, []string{`"labels"."category" has 1`}},
		{"unknown as a class", map[string]any{"labels": map[string]any{"category": []string{"chat", "unknown", "email"}}}, []string{`"unknown"`, "index 1"}},
		{"label twice", map[string]any{"labels": map[string]any{"category": []string{"chat", "voip", "chat"}}}, []string{`"chat" twice`, "0 and 2"}},
		{"label empty", map[string]any{"labels": map[string]any{"category": []string{"chat", "", "email"}}}, []string{`""`, "index 1"}},
		{"label form", map[string]any{"labels": map[string]any{"category": []string{"chat", "VoIP call", "email"}}}, []string{`"VoIP call"`}},
		{"temperature", map[string]any{"temperature": map[string]any{"category": 0}}, []string{`"temperature"."category" is 0`}},
		{"threshold", map[string]any{"unknown_threshold": map[string]any{"category": 1.5}}, []string{`"unknown_threshold"."category" is 1.5`}},
		{"operating point", map[string]any{"operating_points": map[string]any{"category": []any{map[string]any{"coverage": 1.5}}}}, []string{`"operating_points"."category" has 1.5 at index 0`}},
		{"high growth", map[string]any{"growth": 1.2}, []string{`"growth" is 1.2`}},
		{"low growth", map[string]any{"growth": -0.1}, []string{`"growth" is -0.1`}},
		{"no floor", map[string]any{"floor": 0}, []string{`"floor" is 0`}},
		{"high floor", map[string]any{"floor": 0.5}, []string{`"floor" is 0.5`}},
		{"final", map[string]any{"final_confidence": 95}, []string{`"final_confidence" is 95`}},
		{"samples", map[string]any{"samples": 1000}, []string{`"samples" is 1000`}},
		{"kind", map[string]any{"samples": "five"}, []string{"line 1", `"samples"`, "string"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			manifest := fittingManifest()
			for field, value := range test.set {
				manifest[field] = value
			}
			_, err := Load(write(t, t.TempDir(), manifest))
			faulttest.Want(t, err, append(test.want, "test.")...)
		})
	}
}

func TestRefusedManifestText(t *testing.T) {
	_, err := Load(writeText(t, t.TempDir(), []byte("{\n\"format\": 1,\n\"vector\" 1}")))
	faulttest.Want(t, err, "line 3", "test.json")
	_, err = Load(writeText(t, t.TempDir(), nil))
	faulttest.Want(t, err, "line 1", "test.json")
}

func TestRefusedFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.onnx"))
	faulttest.Want(t, err, "none.onnx", "no such file")
	_, err = Load("./model.json")
	faulttest.Want(t, err, "./model.json", ".onnx")
	file := write(t, t.TempDir(), fittingManifest())
	if err := os.Remove(strings.TrimSuffix(file, ".onnx") + ".json"); err != nil {
		t.Fatal(err)
	}
	_, err = Load(file)
	faulttest.Want(t, err, "test.onnx", "test.json", "no such file")
}

// What is not a regular file, or too large, is refused before it is read: a pipe would
// block, a device would fill the memory.
func TestRefusedKindOfFile(t *testing.T) {
	for name, test := range map[string]struct {
		make func(file string) error
		says string
	}{
		"pipe":      {func(file string) error { return unix.Mkfifo(file, 0o600) }, "is a named pipe"},
		"device":    {func(file string) error { return os.Symlink("/dev/zero", file) }, "is a device"},
		"directory": {func(file string) error { return os.Mkdir(file, 0o700) }, "is a directory"},
		"too large": {func(file string) error {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(file, maxNetwork+1) // without blocks: it is not read
		}, "is larger than"},
	} {
		for _, which := range []string{"test.onnx", "test.json"} {
			dir := t.TempDir()
			file := write(t, dir, fittingManifest())
			changed := filepath.Join(dir, which)
			if err := errors.Join(os.Remove(changed), test.make(changed)); err != nil {
				t.Fatal(err)
			}
			_, err := Load(file)
			faulttest.Want(t, err, test.says, which)
			if name == "too large" {
				break // the limit of a manifest is the smaller one
			}
		}
	}
	file := writeText(t, t.TempDir(), bytes.Repeat([]byte(" "), maxManifest+1))
	_, err := Load(file)
	faulttest.Want(t, err, "is larger than 1048576 bytes")
}

func TestLoadAll(t *testing.T) {
	category := write(t, t.TempDir(), fittingManifest())
	manifest := fittingManifest()
	manifest["name"], manifest["task"], manifest["labels"] = "apps", []string{"app"}, map[string]any{"app": []string{"skype", "doom", "quake"}}
	app := write(t, t.TempDir(), manifest)
	loaded, err := LoadAll([]string{category, app})
	if err != nil {
		t.Fatal(err)
	}
	if labels := NewLabels(loaded); !slices.Equal(labels, []string{"doom", "quake"}) {
		t.Errorf("new labels are %q", labels)
	}
	_, err = LoadAll([]string{category, category})
	faulttest.Want(t, err, "category")
	if !errors.Is(err, ErrTaskTwice) {
		t.Errorf("%v does not wrap ErrTaskTwice", err)
	}
	if loaded, err = LoadAll(nil); err != nil || len(loaded) != 1 || loaded[0].Name != Default {
		t.Errorf("without a name: %v, %v", loaded, err)
	}
	if loaded, err = LoadAll([]string{"sae-app", "cnn-traffic"}, paper); err != nil || len(loaded) != 2 {
		t.Errorf("the paper's: %v, %v", loaded, err)
	}
}

func FuzzManifest(f *testing.F) {
	manifest := fittingManifest()
	manifest["sha256"] = strings.Repeat("0", 64)
	text, err := json.Marshal(manifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err == nil && (len(m.Task) == 0 || m.Samples < 1 || m.FinalConfidence <= 0 || m.Floor <= 0) {
			t.Errorf("accepted %+v", m)
		}
	})
}
