// SPDX-License-Identifier: Apache-2.0

// Package modelcard reads what a model's manifest says about its quality: scores by
// split and task, and the speed measured when it was exported.
package modelcard

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
)

// The parts of a manifest's figures that other packages use.
const (
	FlowSplit    = "flow split"
	CaptureSplit = "capture split"
	Validation   = "validation"
)

// parts are the parts in the order in which they are shown, with a description of each.
var parts = []struct{ name, about string }{
	{"packet split", "as in the paper: packets of one flow in training and test"},
	{FlowSplit, "flows that were not in training"},
	{CaptureSplit, "captures that were not in training; of a class with one capture, its later flows"},
	{"elsewhere", "other networks and years"},
	{Validation, "kept out of training; used to choose the temperature of the verdicts"},
}

// score is a score on n packets or flows.
type score struct {
	N          int   `json:"n"`
	Accuracy   share `json:"accuracy"`
	MacroF1    share `json:"macro_f1"`
	WeightedF1 share `json:"weighted_f1"`
}

// share is a number, or one with its 95 % interval: [0.86, 0.84, 0.88].
type share struct{ mean, low, high float64 }

func (s *share) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &s.mean); err == nil {
		return nil
	}
	var three [3]float64
	if err := json.Unmarshal(text, &three); err != nil {
		return err
	}
	s.mean, s.low, s.high = three[0], three[1], three[2]
	return nil
}

func (s share) String() string {
	if s.high == 0 {
		return fmt.Sprintf("%.3f", s.mean)
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", s.mean, s.low, s.high)
}

// taskScores are the scores of one task.
type taskScores struct {
	Packet *score `json:"packet"`
	Flow   *score `json:"flow"`
}

// Card holds a manifest's figures.
type Card struct {
	parts []cardPart
	// micros is the time in µs that one core takes for a packet at batch 32, as
	// measured when the model was exported; 0: not given.
	micros float64
	// others are figures of other forms, as "a.b 0.81".
	others []string
}

type cardPart struct {
	name, about string
	scores      map[flow.Task]taskScores
}

// Read reads a manifest's figures. What is missing or has another form is no error: a
// model may have any figures.
func Read(raw json.RawMessage) Card {
	var c Card
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return c
	}
	for _, part := range parts {
		var scores map[flow.Task]taskScores
		if text, ok := fields[part.name]; ok && json.Unmarshal(text, &scores) == nil {
			c.parts = append(c.parts, cardPart{part.name, part.about, scores})
			delete(fields, part.name)
		}
	}
	var export struct {
		Micros float64 `json:"us_per_packet"`
	}
	if json.Unmarshal(fields["export"], &export) == nil {
		c.micros = export.Micros
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c.others = append(c.others, flat(name, fields[name])...)
	}
	return c
}

// Print prints the scores as a table, and the other figures below it.
func (c Card) Print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(c.parts) > 0 {
		fmt.Fprintln(table, "\nfigures\ttask\tby\tn\taccuracy\tmacro-F1\tweighted F1")
	}
	for _, part := range c.parts {
		name := part.name
		for _, task := range flow.Tasks {
			scores := part.scores[task]
			for _, level := range []struct {
				name  string
				score *score
			}{{"flow", scores.Flow}, {"packet", scores.Packet}} {
				if s := level.score; s != nil {
					fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", name, task, level.name, s.N, s.Accuracy, s.MacroF1, s.WeightedF1)
					name = ""
				}
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, part := range c.parts {
		fmt.Fprintf(out, "%s: %s\n", part.name, part.about)
	}
	for _, line := range c.others {
		if _, err := fmt.Fprintln(out, tui.Printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// flat turns a tree of figures into lines "a.b.c 0.81".
func flat(name string, raw json.RawMessage) []string {
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var tree any
	if decoder.Decode(&tree) != nil {
		return nil
	}
	var lines []string
	var walk func(path string, node any)
	walk = func(path string, node any) {
		switch node := node.(type) {
		case map[string]any:
			keys := make([]string, 0, len(node))
			for key := range node {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			for _, key := range keys {
				walk(path+"."+key, node[key])
			}
		case []any:
			lines = append(lines, path+" "+strings.Trim(fmt.Sprint(node), "[]"))
		default:
			lines = append(lines, fmt.Sprintf("%s %v", path, node))
		}
	}
	walk(name, tree)
	return lines
}
