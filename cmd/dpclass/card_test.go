// SPDX-License-Identifier: Apache-2.0

package main

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
	c := readCard(json.RawMessage(figures))
	if len(c.parts) != 2 || c.parts[0].name != flowSplit || c.parts[1].scores[flow.Category].Packet.N != 9 || c.micros != 8 {
		t.Errorf("%+v", c)
	}
	var out bytes.Buffer
	if err := showFigures(&out, c); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"flow split  category  flow    100  0.910 [0.900, 0.920]", "validation  category  flow    4    0.750                 0.600",
		"export.int8.accuracy_lost 0.001", "export.batches 1 32", "elsewhere not scored"} {
		if !strings.Contains(out.String(), says) {
			t.Errorf("%q is missing in:\n%s", says, out.String())
		}
	}
	for _, empty := range []string{"", "null", "[]", `"none"`} {
		if c := readCard(json.RawMessage(empty)); len(c.parts) != 0 || c.micros != 0 {
			t.Errorf("%q: %+v", empty, c)
		}
	}
}

func TestModelLine(t *testing.T) {
	m := &model.Model{Manifest: model.Manifest{Task: []flow.Task{flow.Category, flow.App}, Figures: json.RawMessage(figures)}}
	line := makeModelLine(m, false)
	if line.Speed != 125000 || line.Speedometer != "export" {
		t.Errorf("%+v", line)
	}
	if got := accuracyText(line, flowSplit, validation); got != "0.91+0.80" {
		t.Errorf("flow split %q", got)
	}
	if got := accuracyText(line, captureSplit, ""); got != "-" {
		t.Errorf("capture split %q", got)
	}
	m.Figures, m.Path = json.RawMessage(strings.Replace(figures, flowSplit, "another split", 1)), "mine.onnx"
	if got := accuracyText(makeModelLine(m, false), flowSplit, validation); got != "0.75+- v" {
		t.Errorf("of one's own %q", got)
	}
	m.Figures = nil
	if got := accuracyText(makeModelLine(m, false), flowSplit, validation); got != "-" {
		t.Errorf("without figures %q", got)
	}
}

func TestModelsListAndShow(t *testing.T) {
	code, out, errOut := offlineRun(t, nil, "models", "list")
	if code != 0 || !strings.Contains(out, "CAPTURE SPLIT") || !strings.Contains(out, "* ") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	for _, name := range model.Shipped() {
		code, text, errOut := offlineRun(t, nil, "models", "show", name)
		if code != 0 || !strings.Contains(out, name) {
			t.Fatalf("%s: exit %d, %q", name, code, errOut)
		}
		for _, says := range []string{"weaknesses\n- ", "licence  ", "validation", "  split"} {
			if !strings.Contains(text, says) {
				t.Errorf("%s: %q is missing in:\n%s", name, says, text)
			}
		}
	}
}
