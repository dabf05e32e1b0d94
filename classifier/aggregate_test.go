// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"math"
	"testing"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
)

func rows(category, app []float32) (r [flow.NumTasks][]float32) {
	r[0], r[1] = category, app
	return r
}

func TestVerdictCombines(t *testing.T) {
	d := testDecider(false)
	a := d.newAggregate()
	d.add(a, rows([]float32{.6, .3, .1}, nil))
	v, settled := d.verdicts(a, false, false)
	if c := v[flow.Category]; settled || c.Final || c.Label != "chat" || math.Abs(c.Confidence-.6) > 1e-6 {
		t.Errorf("one sample: %+v, want chat with .6, provisional", c)
	}
	if v[flow.App] != (flow.Verdict{}) {
		t.Errorf("a task without a model has the verdict %+v", v[flow.App])
	}
	d.add(a, rows([]float32{.2, .7, .1}, nil))
	v, _ = d.verdicts(a, false, false)
	power := func(p float64) float64 { return math.Pow(p, 1/math.Pow(2, model.DefaultGrowth)) }
	c := v[flow.Category]
	if want := power(.21) / (power(.12) + power(.21) + power(.01)); c.Label != "voip" || math.Abs(c.Confidence-want) > 1e-6 {
		t.Errorf("two samples: %+v, want voip with %.3f", c, want)
	}
	if c.Source != flow.SourceModel || c.Model != "m" {
		t.Errorf("source and model are %v and %q", c.Source, c.Model)
	}
}

func TestVerdictTemperature(t *testing.T) {
	d := testDecider(false)
	d.heads[0].temperature = 2
	a := d.newAggregate()
	d.add(a, rows([]float32{.64, .36, 0}, nil))
	// Square roots of the probabilities; the ruled out class counts for almost nothing.
	if v, _ := d.verdicts(a, false, false); math.Abs(v[flow.Category].Confidence-.8/1.4) > 1e-5 {
		t.Errorf("confidence %g, want %g", v[flow.Category].Confidence, .8/1.4)
	}
}

func TestVerdictUnderflow(t *testing.T) {
	d := testDecider(false)
	a := d.newAggregate()
	for range 5 {
		d.add(a, rows([]float32{0, 0, 0}, nil))
	}
	if v, _ := d.verdicts(a, false, false); !(v[flow.Category].Confidence > .33 && v[flow.Category].Confidence < .34) {
		t.Errorf("confidence %g after outputs that underflowed", v[flow.Category].Confidence)
	}
}

func TestVerdictGrowthAndFloor(t *testing.T) {
	d := testDecider(true)
	d.heads[flow.Category].growth, d.heads[flow.Category].floor = 0, .1
	a := d.newAggregate()
	d.add(a, rows([]float32{.6, .4, 0}, []float32{1, 0}))
	d.add(a, rows([]float32{.8, .2, 0}, []float32{1, 0}))
	// The plain product, with .1 in place of 0; the other task has its own numbers.
	v, _ := d.verdicts(a, false, false)
	if want := .48 / (.48 + .08 + .01); math.Abs(v[flow.Category].Confidence-want) > 1e-6 {
		t.Errorf("confidence %g, want %g", v[flow.Category].Confidence, want)
	}
	if v[flow.App].Confidence < 1-1e-9 {
		t.Errorf("the other task has confidence %g", v[flow.App].Confidence)
	}
}

// Each task is final by itself, and stays as it is while the other goes on.
func TestVerdictFinalByTask(t *testing.T) {
	sure, other := []float32{.98, .01, .01}, []float32{.001, .998, .001}
	even, sureApp := []float32{.5, .5}, []float32{.995, .005}

	d := testDecider(true)
	a := d.newAggregate()
	d.add(a, rows(sure, even))
	v, settled := d.verdicts(a, false, false)
	if settled || !v[flow.Category].Final || v[flow.App].Final {
		t.Errorf("%+v, settled %t: want a final category and a provisional app", v, settled)
	}
	frozen := v[flow.Category]
	d.add(a, rows(other, sureApp))
	d.add(a, rows(other, sureApp))
	v, settled = d.verdicts(a, false, false)
	if !settled || v[flow.Category] != frozen || !v[flow.App].Final || v[flow.App].Label != "skype" {
		t.Errorf("%+v, settled %t: want the category as it was and a final skype", v, settled)
	}
	a.reset()
	d.add(a, rows(other, even))
	if v, _ := d.verdicts(a, false, false); v[flow.Category].Label != "voip" {
		t.Errorf("%+v after a reset: the old flow's final verdict is still there", v)
	}
}

func TestVerdictAtTheEnd(t *testing.T) {
	unsure, even := []float32{.5, .25, .25}, []float32{.5, .5}
	d := testDecider(true)
	d.samples = 2
	a := d.newAggregate()
	d.add(a, rows(unsure, even))
	if v, settled := d.verdicts(a, false, false); settled || v[flow.App].Label != "skype" {
		t.Errorf("%+v, want a provisional verdict: no task is unknown before the end", v)
	}
	if v, settled := d.verdicts(a, true, false); !settled || v[flow.App].Label != flow.Unknown {
		t.Errorf("%+v, want it final as the last sample", v)
	}
	a = d.newAggregate()
	d.add(a, rows(unsure, even))
	d.add(a, rows(unsure, even))
	v, settled := d.verdicts(a, false, false)
	if !settled || v[flow.Category].Label != "chat" || v[flow.App].Label != flow.Unknown {
		t.Errorf("%+v, want a final chat and unknown: the budget is spent", v)
	}
	if v[flow.App].Confidence != .5 {
		t.Errorf("unknown has confidence %g, want that of the likeliest label", v[flow.App].Confidence)
	}
}

func TestDeciderSettings(t *testing.T) {
	category := &model.Model{Manifest: model.Manifest{
		Name: "c", Task: []flow.Task{flow.Category}, Labels: map[flow.Task][]string{flow.Category: {"a", "b"}},
		Temperature: map[flow.Task]float64{flow.Category: 1.5}, UnknownThreshold: map[flow.Task]float64{flow.Category: .3},
		Growth: .5, Floor: 1e-6, FinalConfidence: .9, Samples: 3,
	}}
	app := &model.Model{Manifest: model.Manifest{
		Name: "a", Task: []flow.Task{flow.App}, Labels: map[flow.Task][]string{flow.App: {"x", "y"}},
		Temperature: map[flow.Task]float64{flow.App: 1}, UnknownThreshold: map[flow.Task]float64{flow.App: .7},
		Growth: .8, Floor: 1e-12, FinalConfidence: .99, Samples: 7,
	}}

	d := newDecider([]*model.Model{app, category}, 0, .5)
	if d.samples != 7 {
		t.Errorf("budget %d, want the larger of the two models'", d.samples)
	}
	if h := d.heads[0]; h.model != "c" || h.unknown != .5 || h.final != .9 || h.temperature != 1.5 || h.growth != .5 || h.floor != 1e-6 {
		t.Errorf("category: %+v", h)
	}
	if h := d.heads[1]; h.model != "a" || h.unknown != .7 || h.final != .99 {
		t.Errorf("app: %+v", h)
	}
	d = newDecider([]*model.Model{category}, 4, .97)
	if d.samples != 4 || d.heads[0].final != .97 || d.heads[1] != nil {
		t.Errorf("samples %d, final %g, app %v", d.samples, d.heads[0].final, d.heads[1])
	}
}
