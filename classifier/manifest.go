// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/dpclass/dpclass/internal/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// ManifestFormat is the version of the manifest that this program reads.
const ManifestFormat = 1

// Task is what a model tells of a flow. A task's name is the name of the
// model's output.
type Task string

// The tasks.
const (
	Category Task = "category"
	App      Task = "app"
)

// Tasks lists the tasks in the order used everywhere.
var Tasks = [...]Task{Category, App}

// Defaults of a manifest that leaves a setting out. 'dpclass dataset build' writes the
// exported ones into meta.json, where the trainer reads them.
const (
	// DefaultSamples is the sample budget of a flow.
	DefaultSamples = 5
	// DefaultGrowth is below 1 because the samples of a flow say much the same: five that
	// agree are not five times as sure (docs/decisions.md).
	DefaultGrowth = 0.8
	// DefaultFloor keeps an output that underflowed from giving -Inf.
	DefaultFloor = 1e-12

	defaultFinalConfidence = 0.95
)

// maxSamples bounds the sample budget: the kernel counts samples in a byte.
const maxSamples = 255

// Manifest is the file NAME.json beside NAME.onnx.
type Manifest struct {
	Format           int               `json:"format"`
	Vector           int               `json:"vector"`
	Name             string            `json:"name"`
	Task             []Task            `json:"task"`
	Labels           map[Task][]string `json:"labels"` // in output order
	Architecture     string            `json:"architecture"`
	Parameters       int64             `json:"parameters"`
	MAC              int64             `json:"mac"`       // multiply-accumulates a packet
	Precision        string            `json:"precision"` // fp32 or int8
	Temperature      map[Task]float64  `json:"temperature"`
	Growth           float64           `json:"growth"` // the temperature is multiplied by samples^growth
	Floor            float64           `json:"floor"`  // probabilities below it count as it
	UnknownThreshold map[Task]float64  `json:"unknown_threshold"`
	FinalConfidence  float64           `json:"final_confidence"`
	Samples          int               `json:"samples"` // sample budget of a flow
	Training         Training          `json:"training"`
	Figures          json.RawMessage   `json:"figures,omitempty"`
	Weaknesses       []string          `json:"weaknesses"`
	SHA256           string            `json:"sha256"` // of the .onnx file
	Licence          string            `json:"licence"`
}

// Training tells what a model was trained on.
type Training struct {
	Data    []TrainingSet `json:"data"`
	Split   string        `json:"split"`
	Seed    int64         `json:"seed"`
	Packets int64         `json:"packets"`
	Flows   int64         `json:"flows"`
}

// TrainingSet is one source of training data.
type TrainingSet struct {
	Set     string `json:"set"`
	Source  string `json:"source"`
	Licence string `json:"licence"`
}

// parseManifest reads and checks a manifest. Its errors say what is wrong and
// with which field; the caller says with which file.
func parseManifest(data []byte) (*Manifest, error) {
	m := Manifest{Growth: DefaultGrowth, Floor: DefaultFloor} // 0 is a growth, so it cannot mean "left out"
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, jsonReason(data, err)
	}
	if m.Format != ManifestFormat {
		return nil, fmt.Errorf("\"format\" is %d, this program reads format %d\nuse a model made for this version of dpclass", m.Format, ManifestFormat)
	}
	if m.Vector != vector.Version {
		return nil, fmt.Errorf("\"vector\" is %d, this program makes vector version %d\ntrain the model on a dataset of 'dpclass dataset build' of this version", m.Vector, vector.Version)
	}
	if !flow.ValidName(m.Name) {
		return nil, fmt.Errorf("\"name\" is %q\nwrite %s", m.Name, flow.NameRule)
	}
	if raw, err := hex.DecodeString(m.SHA256); err != nil || len(raw) != 32 {
		return nil, fmt.Errorf("\"sha256\" is %q\nwrite the 64 hexadecimal digits that sha256sum prints for the .onnx file", m.SHA256)
	}
	if len(m.Task) == 0 {
		return nil, errors.New("\"task\" is empty\nwrite [\"category\"], [\"app\"] or [\"category\", \"app\"]")
	}
	for i, task := range m.Task {
		if !slices.Contains(Tasks[:], task) {
			return nil, fmt.Errorf("\"task\" has %q\nwrite [\"category\"], [\"app\"] or [\"category\", \"app\"]", task)
		}
		if slices.Contains(m.Task[:i], task) {
			return nil, fmt.Errorf("\"task\" has %q twice\nwrite each task once", task)
		}
		if err := m.checkTask(task); err != nil {
			return nil, err
		}
	}
	for task := range m.Labels {
		if !slices.Contains(m.Task, task) {
			return nil, fmt.Errorf("\"labels\" has %q, which \"task\" does not name\nadd it to \"task\", or take it out of \"labels\"", task)
		}
	}
	if !(m.Growth >= 0 && m.Growth <= 1) {
		return nil, fmt.Errorf("\"growth\" is %g\nwrite a number from 0 (samples are independent) to 1 (more samples are no surer)", m.Growth)
	}
	if !(m.Floor > 0 && m.Floor <= 0.01) {
		return nil, fmt.Errorf("\"floor\" is %g\nwrite a probability above 0, at most 0.01", m.Floor)
	}
	if m.FinalConfidence == 0 {
		m.FinalConfidence = defaultFinalConfidence
	}
	if m.FinalConfidence < 0 || m.FinalConfidence > 1 {
		return nil, fmt.Errorf("\"final_confidence\" is %g\nwrite a probability between 0 and 1", m.FinalConfidence)
	}
	if m.Samples == 0 {
		m.Samples = DefaultSamples
	}
	if m.Samples < 1 || m.Samples > maxSamples {
		return nil, fmt.Errorf("\"samples\" is %d\nwrite the number of packets of a flow to look at, 1 to %d", m.Samples, maxSamples)
	}
	return &m, nil
}

// checkTask checks what the manifest says of one task, and fills in defaults.
func (m *Manifest) checkTask(task Task) error {
	labels := m.Labels[task]
	if len(labels) < 2 {
		return fmt.Errorf("\"labels\".%q has %d labels\nwrite the name of each output, in output order", task, len(labels))
	}
	for i, label := range labels {
		if label == flow.Unknown {
			return fmt.Errorf("\"labels\".%q has %q at index %d, which is never a class\nleave such traffic out of the classes; \"unknown_threshold\" rejects flows", task, label, i)
		}
		if !flow.ValidName(label) {
			return fmt.Errorf("\"labels\".%q has %q at index %d\nwrite %s", task, label, i, flow.NameRule)
		}
		if j := slices.Index(labels, label); j < i {
			return fmt.Errorf("\"labels\".%q has %q twice, at index %d and %d\nwrite each label once", task, label, j, i)
		}
	}
	if m.Temperature == nil {
		m.Temperature = map[Task]float64{}
	}
	if m.UnknownThreshold == nil {
		m.UnknownThreshold = map[Task]float64{}
	}
	temperature, ok := m.Temperature[task]
	if !ok {
		m.Temperature[task], temperature = 1, 1
	}
	if !(temperature >= 0.01 && temperature <= 100) {
		return fmt.Errorf("\"temperature\".%q is %g\nwrite a number between 0.01 and 100 (1: leave the probabilities as they are)", task, temperature)
	}
	if t := m.UnknownThreshold[task]; !(t >= 0 && t < 1) {
		return fmt.Errorf("\"unknown_threshold\".%q is %g\nwrite a probability from 0 (reject nothing) to below 1", task, t)
	}
	return nil
}

// jsonReason says where in the text the JSON is wrong.
func jsonReason(data []byte, err error) error {
	line := func(offset int64) int {
		n := 1
		for _, b := range data[:min(offset, int64(len(data)))] {
			if b == '\n' {
				n++
			}
		}
		return n
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: not JSON: %w\ncopy the manifest again from where the model came from", line(syntax.Offset), err)
	case errors.As(err, &kind):
		return fmt.Errorf("line %d: %q is a JSON %s\nwrite it as docs/training.md shows", line(kind.Offset), kind.Field, kind.Value)
	}
	return err
}
