// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/vector"
)

// Format is the version of the manifest that this package reads.
const Format = 1

// Defaults for settings that a manifest leaves out. The default sample budget is
// flow.DefaultSamples.
const (
	// DefaultGrowth is below 1 because the samples of a flow carry much the same
	// information: five that agree are not five times as sure (docs/decisions.md).
	DefaultGrowth = 0.8
	// DefaultFloor keeps an output that underflowed from giving -Inf.
	DefaultFloor = 1e-12
	// DefaultFinalConfidence lets one in twenty final verdicts be wrong, if the
	// probabilities are calibrated.
	DefaultFinalConfidence = 0.95
)

// Manifest is the file NAME.json next to NAME.onnx. It says how to read the network's
// outputs, and describes the network.
type Manifest struct {
	Format           int                    `json:"format"`
	Vector           int                    `json:"vector"` // version of the input's layout
	Name             string                 `json:"name"`
	Task             []flow.Task            `json:"task"`
	Labels           map[flow.Task][]string `json:"labels"` // in output order
	Architecture     string                 `json:"architecture"`
	Parameters       int64                  `json:"parameters"`
	MAC              int64                  `json:"mac"`       // multiply-accumulates per packet
	Precision        string                 `json:"precision"` // fp32 or int8
	Temperature      map[flow.Task]float64  `json:"temperature"`
	Growth           float64                `json:"growth"`            // the temperature is multiplied by samples^growth
	Floor            float64                `json:"floor"`             // lower probabilities are raised to it
	UnknownThreshold map[flow.Task]float64  `json:"unknown_threshold"` // final verdicts less confident than this are unknown
	FinalConfidence  float64                `json:"final_confidence"`  // verdicts at least as confident as this are final
	Samples          int                    `json:"samples"`           // sample budget of a flow
	// OperatingPoints says for each task what a minimum confidence buys, as measured on
	// flows that the network was not trained on.
	OperatingPoints map[flow.Task][]OperatingPoint `json:"operating_points,omitempty"`
	// Confusion says for each task what the network says of flows that it was not trained on.
	Confusion  map[flow.Task]Confusion `json:"confusion,omitempty"`
	Training   Training                `json:"training"`
	Figures    json.RawMessage         `json:"figures,omitempty"` // scores by split, as the trainer wrote them
	Weaknesses []string                `json:"weaknesses"`
	SHA256     string                  `json:"sha256"` // of the .onnx file, in hexadecimal
	Licence    string                  `json:"licence"`
}

// OperatingPoint is what the verdicts of a minimum confidence are worth.
type OperatingPoint struct {
	MinConfidence float64 `json:"min_confidence"`
	Coverage      float64 `json:"coverage"` // share of the flows that reach it
	Right         float64 `json:"right"`    // share of these that are right
}

// Confusion counts flows by the label that they have and by what the network says of them.
type Confusion struct {
	Labels []string `json:"labels"`
	Matrix [][]int  `json:"matrix"` // by label in truth, then by what the network says, in the order of Labels
	Data   string   `json:"data"`   // which flows, and how they were counted
}

// check returns what is wrong with a confusion matrix.
func (c *Confusion) check() error {
	for n, row := range c.Matrix {
		if len(row) != len(c.Labels) {
			return fmt.Errorf("row %d has %d numbers", n, len(row))
		}
		for _, flows := range row {
			if flows < 0 {
				return fmt.Errorf("row %d has the number %d", n, flows)
			}
		}
	}
	if len(c.Matrix) != len(c.Labels) {
		return fmt.Errorf("there are %d rows", len(c.Matrix))
	}
	return nil
}

// Training says what data a model was trained on, and how the data were split.
type Training struct {
	Data    []TrainingSet `json:"data"`
	Split   string        `json:"split"` // packet, flow, capture or all
	Seed    int64         `json:"seed"`
	Packets int64         `json:"packets"`
	Flows   int64         `json:"flows"`
}

// TrainingSet is one source of training data, with where it comes from and its
// licence.
type TrainingSet struct {
	Set     string `json:"set"`
	Source  string `json:"source"`
	Licence string `json:"licence"`
}

// parseManifest reads and checks a manifest. Its errors name the field and what is
// wrong with it; the caller adds the file.
func parseManifest(data []byte) (*Manifest, error) {
	m := Manifest{
		Growth: DefaultGrowth, Floor: DefaultFloor, FinalConfidence: DefaultFinalConfidence, Samples: flow.DefaultSamples,
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, jsonReason(data, err)
	}
	if m.Format != Format {
		return nil, fault.Advise(fmt.Errorf("\"format\" is %d, this program reads format %d", m.Format, Format),
			"use a model made for this version of dpclass")
	}
	if m.Vector != vector.Version {
		return nil, fault.Advise(fmt.Errorf("\"vector\" is %d, this program makes vector version %d", m.Vector, vector.Version),
			"train the model on a dataset made by 'dpclass dataset build' of this version")
	}
	if !flow.ValidName(m.Name) {
		return nil, fault.Advise(fmt.Errorf("\"name\" is %q", m.Name), "write %s", flow.NameRule)
	}
	if raw, err := hex.DecodeString(m.SHA256); err != nil || len(raw) != 32 {
		return nil, fault.Advise(fmt.Errorf("\"sha256\" is %q", m.SHA256),
			"write the 64 hexadecimal digits that sha256sum prints for the .onnx file")
	}
	if err := m.checkTasks(); err != nil {
		return nil, err
	}
	// The conditions are written so that NaN fails too.
	if !(m.Growth >= 0 && m.Growth <= 1) {
		return nil, fault.Advise(fmt.Errorf("\"growth\" is %g", m.Growth),
			"write a number from 0 (samples are independent) to 1 (more samples are no surer)")
	}
	if !(m.Floor > 0 && m.Floor < 1e-3) {
		return nil, fault.Advise(fmt.Errorf("\"floor\" is %g", m.Floor), "write a probability above 0 and below 0.001")
	}
	if !(m.FinalConfidence > 0 && m.FinalConfidence <= 1) {
		return nil, fault.Advise(fmt.Errorf("\"final_confidence\" is %g", m.FinalConfidence), "write a probability above 0, at most 1")
	}
	if m.Samples < 1 || m.Samples > flow.MaxSamples {
		return nil, fault.Advise(fmt.Errorf("\"samples\" is %d", m.Samples),
			"write the number of packets to read per flow, 1 to %d", flow.MaxSamples)
	}
	return &m, nil
}

// checkTasks checks the tasks and what the manifest says about each, and fills in
// defaults.
func (m *Manifest) checkTasks() error {
	const want = `write ["category"], ["app"] or ["category", "app"]`
	if len(m.Task) == 0 {
		return fault.New("\"task\" is empty", want)
	}
	for i, task := range m.Task {
		if slices.Contains(m.Task[:i], task) {
			return fault.Advise(fmt.Errorf("\"task\" has %q twice", task), want)
		}
		if err := m.checkTask(task); err != nil {
			return err
		}
	}
	for task := range m.Labels {
		if !slices.Contains(m.Task, task) {
			return fault.Advise(fmt.Errorf("\"labels\" has %q, which \"task\" does not name", task),
				"add it to \"task\", or remove it from \"labels\"")
		}
	}
	return nil
}

func (m *Manifest) checkTask(task flow.Task) error {
	labels := m.Labels[task]
	if len(labels) < 2 {
		return fault.Advise(fmt.Errorf("\"labels\".%q has %d labels", task, len(labels)),
			"write the name of each output, in output order, at least two")
	}
	for i, label := range labels {
		if label == flow.Unknown {
			return fault.Advise(fmt.Errorf("\"labels\".%q has %q at index %d, which cannot be a class", task, label, i),
				"remove it; \"unknown_threshold\" makes flows unknown")
		}
		if !flow.ValidName(label) {
			return fault.Advise(fmt.Errorf("\"labels\".%q has %q at index %d", task, label, i), "write %s", flow.NameRule)
		}
		if j := slices.Index(labels, label); j < i {
			return fault.Advise(fmt.Errorf("\"labels\".%q has %q twice, at index %d and %d", task, label, j, i), "write each label once")
		}
	}
	if m.Temperature == nil {
		m.Temperature = map[flow.Task]float64{}
	}
	if m.UnknownThreshold == nil {
		m.UnknownThreshold = map[flow.Task]float64{}
	}
	temperature, ok := m.Temperature[task]
	if !ok {
		m.Temperature[task], temperature = 1, 1
	}
	if !(temperature >= 0.01 && temperature <= 100) {
		return fault.Advise(fmt.Errorf("\"temperature\".%q is %g", task, temperature),
			"write a number between 0.01 and 100 (1: leave the probabilities as they are)")
	}
	if t := m.UnknownThreshold[task]; !(t >= 0 && t < 1) {
		return fault.Advise(fmt.Errorf("\"unknown_threshold\".%q is %g", task, t),
			"write a probability from 0 (reject nothing) to below 1")
	}
	if c, ok := m.Confusion[task]; ok {
		if err := c.check(); err != nil {
			return fault.Advise(fmt.Errorf("\"confusion\".%q is no matrix of its %d labels: %w", task, len(c.Labels), err),
				"write one row for each label, with a number of flows for each label, or leave the field out")
		}
	}
	for i, p := range m.OperatingPoints[task] {
		for _, share := range []float64{p.MinConfidence, p.Coverage, p.Right} {
			if !(share >= 0 && share <= 1) {
				return fault.Advise(fmt.Errorf("\"operating_points\".%q has %g at index %d", task, share, i),
					"write shares from 0 to 1, or leave the field out")
			}
		}
	}
	return nil
}

// jsonReason says where the JSON is wrong.
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
	const asShown = "write it as shown in docs/training.md"
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fault.Advise(fmt.Errorf("line %d: not JSON: %w", line(syntax.Offset), err),
			"copy the manifest again from where the model came from")
	case errors.As(err, &kind):
		return fault.Advise(fmt.Errorf("line %d: %q is a JSON %s", line(kind.Offset), kind.Field, kind.Value), asShown)
	}
	return fault.Advise(err, asShown)
}
