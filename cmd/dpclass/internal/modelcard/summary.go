// SPDX-License-Identifier: Apache-2.0

package modelcard

import (
	"fmt"
	"strings"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
)

// Summary is a model in a few figures, and the JSON of "dpclass models list -o json"
// and "models verify -o json".
type Summary struct {
	Name       string      `json:"name"`
	File       string      `json:"file"` // "" for the model that is built in
	InUse      bool        `json:"in_use"`
	Task       []flow.Task `json:"task"`
	Categories int         `json:"categories"`
	Apps       int         `json:"apps"`
	Precision  string      `json:"precision"`
	Parameters int64       `json:"parameters"`
	MAC        int64       `json:"mac"`
	Bytes      int         `json:"bytes"`
	SHA256     string      `json:"sha256"`
	// Accuracy is by flow, by split and task, as the model's manifest has it.
	Accuracy map[string]map[flow.Task]float64 `json:"accuracy,omitempty"`
	// Speed is that of one core at batch 32, measured when the model was exported.
	Speed   float64 `json:"packets_per_s_core,omitempty"`
	Runtime string  `json:"onnxruntime,omitempty"` // release that ran it; verify only
}

// Summarize returns the summary of a model.
func Summarize(m *model.Model) Summary {
	s := Summary{
		Name: m.Name, File: m.Path, Task: m.Task,
		Categories: len(m.Labels[flow.Category]), Apps: len(m.Labels[flow.App]),
		Precision: m.Precision, Parameters: m.Parameters, MAC: m.MAC, Bytes: m.Size(), SHA256: m.SHA256,
	}
	card := Read(m.Figures)
	for _, part := range card.parts {
		for task, scores := range part.scores {
			if scores.Flow == nil {
				continue
			}
			if s.Accuracy == nil {
				s.Accuracy = map[string]map[flow.Task]float64{}
			}
			if s.Accuracy[part.name] == nil {
				s.Accuracy[part.name] = map[flow.Task]float64{}
			}
			s.Accuracy[part.name][task] = scores.Flow.Accuracy.mean
		}
	}
	if card.micros > 0 {
		s.Speed = 1e6 / card.micros
	}
	return s
}

// TaskNames returns the tasks as "category+app".
func (s *Summary) TaskNames() string {
	names := make([]string, 0, len(s.Task))
	for _, task := range s.Task {
		names = append(names, task.String())
	}
	return strings.Join(names, "+")
}

// LabelCounts returns the number of labels of each task as "13+17".
func (s *Summary) LabelCounts() string {
	var counts []string
	for _, n := range []int{s.Categories, s.Apps} {
		if n > 0 {
			counts = append(counts, fmt.Sprint(n))
		}
	}
	return strings.Join(counts, "+")
}

// AccuracyOn returns the accuracy by flow on a split, task by task, as "0.91+0.80", or
// "-" if there is none. For a model that is not built in, the accuracy on the other
// split replaces a missing one and is marked.
func (s *Summary) AccuracyOn(split, other string) string {
	scores, mark := s.Accuracy[split], ""
	if scores == nil && s.File != "" {
		scores, mark = s.Accuracy[other], " v"
	}
	if scores == nil {
		return "-"
	}
	var texts []string
	for _, task := range s.Task {
		text := "-"
		if accuracy, ok := scores[task]; ok {
			text = fmt.Sprintf("%.2f", accuracy)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "+") + mark
}

// Size writes the size of a model's file: "431 kB".
func Size(bytes int) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%.0f kB", float64(bytes)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
