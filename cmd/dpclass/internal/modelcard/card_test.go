// SPDX-License-Identifier: Apache-2.0

package modelcard

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
)

const figures = `{
 "validation": {"category": {"packet": {"n": 9, "accuracy": 0.7}, "flow": {"n": 4, "accuracy": 0.75, "macro_f1": 0.6}}},
 "flow split": {"category": {"flow": {"n": 100, "accuracy": [0.91, 0.9, 0.92]}}, "app": {"flow": {"n": 50, "accuracy": 0.8}}},
 "elsewhere": "not scored",
 "export": {"us_per_packet": 8, "int8": {"accuracy_lost": 0.001}, "batches": [1, 32]}
}`

func TestCard(t *testing.T) {
	c := Read(json.RawMessage(figures))
	if len(c.parts) != 2 || c.parts[0].name != FlowSplit || c.parts[1].scores[flow.Category].Packet.N != 9 || c.micros != 8 {
		t.Errorf("%+v", c)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"flow split  category  flow    100  0.910 [0.900, 0.920]", "validation  category  flow    4    0.750                 0.600",
		"export.int8.accuracy_lost 0.001", "export.batches 1 32", "elsewhere not scored"} {
		if !strings.Contains(out.String(), says) {
			t.Errorf("%q is missing in:\n%s", says, out.String())
		}
	}
	for _, empty := range []string{"", "null", "[]", `"none"`} {
		if c := Read(json.RawMessage(empty)); len(c.parts) != 0 || c.micros != 0 {
			t.Errorf("%q: %+v", empty, c)
		}
	}
}

func TestSummary(t *testing.T) {
	m := &model.Model{Manifest: model.Manifest{Task: []flow.Task{flow.Category, flow.App}, Figures: json.RawMessage(figures)}}
	summary := Summarize(m)
	if summary.Speed != 125000 || summary.TaskNames() != "category+app" {
		t.Errorf("%+v", summary)
	}
	if got := summary.AccuracyOn(FlowSplit, Validation); got != "0.91+0.80" {
		t.Errorf("flow split %q", got)
	}
	if got := summary.AccuracyOn(CaptureSplit, ""); got != "-" {
		t.Errorf("capture split %q", got)
	}
	m.Figures, m.Path = json.RawMessage(strings.Replace(figures, FlowSplit, "another split", 1)), "mine.onnx"
	own := Summarize(m)
	if got := own.AccuracyOn(FlowSplit, Validation); got != "0.75+- v" {
		t.Errorf("of one's own %q", got)
	}
	m.Figures = nil
	bare := Summarize(m)
	if got := bare.AccuracyOn(FlowSplit, Validation); got != "-" {
		t.Errorf("without figures %q", got)
	}
}
