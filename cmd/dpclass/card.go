// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dpclass/dpclass/flow"
)

// The parts of a manifest's figures.
const (
	flowSplit    = "flow split"
	captureSplit = "capture split"
	validation   = "validation"
)

// cardParts is the order in which they are shown, with what each is.
var cardParts = []struct{ name, about string }{
	{"packet split", "the paper's: packets of one flow on both sides"},
	{flowSplit, "flows that it had not seen"},
	{captureSplit, "captures that it had not seen, later flows where there was one"},
	{"elsewhere", "other networks and years"},
	{validation, "what its training kept out; the verdicts' temperature is of it"},
}

// score is what was reached on n packets or flows.
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

// card is what a manifest's figures hold.
type card struct {
	parts []cardPart
	// micros is the time of a packet as measured when the model was exported, on
	// one core at batch 32; 0: not given.
	micros float64
	// others are figures of other forms, as "a.b 0.81".
	others []string
}

type cardPart struct {
	name, about string
	scores      map[flow.Task]taskScores
}

// readCard reads a manifest's figures. What is missing or has another form is no
// error: a model may say what it likes there.
func readCard(raw json.RawMessage) card {
	var c card
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return c
	}
	for _, part := range cardParts {
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

// showFigures prints the scores as a table, and the others below it.
func showFigures(out io.Writer, c card) error {
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
		if _, err := fmt.Fprintln(out, line); err != nil {
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

// wrap breaks a text into lines of at most 100 columns; those behind the first
// begin with the indent.
func wrap(text, indent string) string {
	const width = 100
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return strings.Join(append(lines, line), "\n"+indent)
}
