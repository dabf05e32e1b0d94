// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/flow"
)

func TestShippedModels(t *testing.T) {
	shipped := Shipped()
	if len(shipped) == 0 || shipped[0] != DefaultModel {
		t.Fatalf("shipped are %q, want %q first", shipped, DefaultModel)
	}
	for _, name := range shipped {
		m, err := LoadModel(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if m.Architecture == "" || m.Parameters == 0 || m.MAC == 0 || m.Licence == "" || len(m.Figures) == 0 || len(m.Weaknesses) == 0 || len(m.Training.Data) == 0 {
			t.Errorf("model %q: its manifest leaves something out: %+v", name, m.Manifest)
		}
		for _, task := range m.Task {
			known := flow.Categories
			if task == App {
				known = flow.Apps
			}
			for _, label := range m.Labels[task] {
				if !slices.Contains(known, label) {
					t.Errorf("model %q: label %q of %s is not in the vocabulary", name, label, task)
				}
			}
		}
	}
}

func TestLoadModelFile(t *testing.T) {
	file := writeModel(t, fitting().encode(), fittingManifest())
	m, err := LoadModel(file)
	if err != nil {
		t.Fatal(err)
	}
	if m.Path != file || m.Name != "test" || !m.Has(Category) || m.Has(App) {
		t.Errorf("loaded %+v", m)
	}
	if m.Samples != DefaultSamples || m.FinalConfidence != defaultFinalConfidence || m.Temperature[Category] != 1 {
		t.Errorf("defaults: %d samples, final from %g, temperature %g", m.Samples, m.FinalConfidence, m.Temperature[Category])
	}
	if m.Growth != DefaultGrowth || m.Floor != DefaultFloor {
		t.Errorf("defaults: growth %g, floor %g", m.Growth, m.Floor)
	}
	manifest := fittingManifest()
	manifest["growth"], manifest["floor"] = 0, 1e-6
	if m, err := LoadModel(writeModel(t, fitting().encode(), manifest)); err != nil || m.Growth != 0 || m.Floor != 1e-6 {
		t.Errorf("growth 0 and floor 1e-6 of the manifest: %+v, %v", m, err)
	}
	open := fitting()
	open.outputs[0].dims[1] = -1
	if _, err := LoadModel(writeModel(t, open.encode(), fittingManifest())); err != nil {
		t.Errorf("an output width that the exporter left open: %v", err)
	}
}

func TestRefusedManifest(t *testing.T) {
	data := fitting().encode()
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
		{"unknown as a class", map[string]any{"labels": map[string]any{"category": []string{"chat", "unknown", "email"}}}, []string{`"unknown"`, "index 1"}},
		{"label twice", map[string]any{"labels": map[string]any{"category": []string{"chat", "voip", "chat"}}}, []string{`"chat" twice`, "0 and 2"}},
		{"label empty", map[string]any{"labels": map[string]any{"category": []string{"chat", "", "email"}}}, []string{`""`, "index 1"}},
		{"label form", map[string]any{"labels": map[string]any{"category": []string{"chat", "VoIP call", "email"}}}, []string{`"VoIP call"`}},
		{"too few labels", map[string]any{"labels": map[string]any{"category": []string{"chat", "voip"}}}, []string{"3 wide", "2 labels"}},
		{"temperature", map[string]any{"temperature": map[string]any{"category": 0}}, []string{`"temperature"."category" is 0`}},
		{"threshold", map[string]any{"unknown_threshold": map[string]any{"category": 1.5}}, []string{`"unknown_threshold"."category" is 1.5`}},
		{"growth", map[string]any{"growth": 1.2}, []string{`"growth" is 1.2`}},
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
			_, err := LoadModel(writeModel(t, data, manifest))
			wantRefusal(t, err, append(test.want, "test.")...)
		})
	}
}

func TestRefusedManifestText(t *testing.T) {
	_, err := LoadModel(writeFiles(t, fitting().encode(), []byte("{\n\"format\": 1,\n\"vector\" 1}")))
	wantRefusal(t, err, "line 3", "test.json")
	_, err = LoadModel(writeFiles(t, fitting().encode(), nil))
	wantRefusal(t, err, "line 1", "test.json")
}

func TestRefusedNetwork(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*onnxFile)
		want   string
	}{
		{"no input", func(f *onnxFile) { f.inputs = nil }, "none"},
		{"input name", func(f *onnxFile) { f.inputs[0].name = "x" }, `"x"`},
		{"two inputs", func(f *onnxFile) { f.inputs = append(f.inputs, onnxValue{name: "port", elem: 7}) }, `"packet", "port"`},
		{"input type", func(f *onnxFile) { f.inputs[0].elem = elemFloat }, "float32"},
		{"input size", func(f *onnxFile) { f.inputs[0].dims[1] = 784 }, "[N,784]"},
		{"input rank", func(f *onnxFile) { f.inputs[0].dims = []int64{-1, 1, 1500} }, "[N,1,1500]"},
		{"fixed batch", func(f *onnxFile) { f.inputs[0].dims[0] = 1 }, "[1,1500]"},
		{"no output", func(f *onnxFile) { f.outputs = nil }, `no output "category"`},
		{"output name", func(f *onnxFile) { f.outputs[0].name = "app" }, `"app"`},
		{"output type", func(f *onnxFile) { f.outputs[0].elem = 11 }, "float64"},
		{"output rank", func(f *onnxFile) { f.outputs[0].dims = []int64{-1} }, "[N]"},
		{"output width", func(f *onnxFile) { f.outputs[0].dims[1] = 17 }, "17 wide"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fitting()
			test.change(&f)
			_, err := LoadModel(writeModel(t, f.encode(), fittingManifest()))
			wantRefusal(t, err, test.want, "test.onnx")
		})
	}
}

func TestRefusedBytes(t *testing.T) {
	whole := fitting().encode()
	for name, data := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-20], "text": []byte("version https://git-lfs.github.com/spec/v1\n"), "zeros": make([]byte, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadModel(writeModel(t, data, fittingManifest()))
			wantRefusal(t, err, "test.onnx", "not an ONNX model")
		})
	}
}

func TestRefusedName(t *testing.T) {
	_, err := LoadModel("cnn-colour")
	wantRefusal(t, err, `"cnn-colour"`, DefaultModel)
	_, err = LoadModel(filepath.Join(t.TempDir(), "none.onnx"))
	wantRefusal(t, err, "none.onnx", "no such file")
	_, err = LoadModel("./model.json")
	wantRefusal(t, err, "./model.json", ".onnx")
	file := writeModel(t, fitting().encode(), fittingManifest())
	if err := os.Remove(strings.TrimSuffix(file, ".onnx") + ".json"); err != nil {
		t.Fatal(err)
	}
	_, err = LoadModel(file)
	wantRefusal(t, err, "test.onnx", "test.json", "no such file")
}

func TestTwoModels(t *testing.T) {
	category := writeModel(t, fitting().encode(), fittingManifest())
	f, manifest := fitting(), fittingManifest()
	f.outputs[0].name = "app"
	manifest["name"], manifest["task"], manifest["labels"] = "apps", []string{"app"}, map[string]any{"app": []string{"skype", "doom", "quake"}}
	app := writeModel(t, f.encode(), manifest)
	loaded, err := LoadModels([]string{category, app})
	if err != nil {
		t.Fatal(err)
	}
	if labels := NewLabels(loaded); !slices.Equal(labels, []string{"doom", "quake"}) {
		t.Errorf("new labels are %q", labels)
	}
	_, err = LoadModels([]string{category, category})
	wantRefusal(t, err, "category")
	if !errors.Is(err, ErrTaskTwice) {
		t.Errorf("%v is no ErrTaskTwice", err)
	}
}

func TestChoice(t *testing.T) {
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
}

func FuzzReadONNX(f *testing.F) {
	f.Add(fitting().encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		inputs, outputs, err := readONNX(data)
		if err == nil && !bytes.Contains(data, []byte{modelGraph<<3 | 2}) {
			t.Errorf("no graph, but %v and %v", inputs, outputs)
		}
	})
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
		if err == nil && (len(m.Task) == 0 || m.Samples < 1 || m.FinalConfidence <= 0) {
			t.Errorf("accepted %+v", m)
		}
	})
}
