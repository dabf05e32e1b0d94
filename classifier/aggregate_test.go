// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"math"
	"testing"

	"github.com/dpclass/dpclass/internal/flow"
)

func rows(category, app []float32) (r [len(Tasks)][]float32) {
	r[0], r[1] = category, app
	return r
}

func TestVerdictCombines(t *testing.T) {
	d := testDecider(false)
	a := d.newAggregate()
	a.add(rows([]float32{.6, .3, .1}, nil))
	v := d.verdict(a, false)
	if v.Final || v.Category.Label != "chat" || math.Abs(v.Category.Confidence-.6) > 1e-6 {
		t.Errorf("one sample: %+v, want chat with .6, provisional", v)
	}
	if v.App != (flow.TaskVerdict{}) {
		t.Errorf("a task without a model has the verdict %+v", v.App)
	}
	a.add(rows([]float32{.2, .7, .1}, nil))
	v = d.verdict(a, false)
	power := func(p float64) float64 { return math.Pow(p, 1/math.Pow(2, DefaultGrowth)) }
	if want := power(.21) / (power(.12) + power(.21) + power(.01)); v.Category.Label != "voip" || math.Abs(v.Category.Confidence-want) > 1e-6 {
		t.Errorf("two samples: %+v, want voip with %.3f", v.Category, want)
	}
	if v.Category.Source != flow.SourceModel || v.Category.Model != "m" {
		t.Errorf("source and model are %v and %q", v.Category.Source, v.Category.Model)
	}
}

func TestVerdictTemperature(t *testing.T) {
	d := testDecider(false)
	d.heads[0].temperature = 2
	a := d.newAggregate()
	a.add(rows([]float32{.64, .36, 0}, nil))
	// Square roots of the probabilities; the ruled out class counts for almost nothing.
	if v := d.verdict(a, false); math.Abs(v.Category.Confidence-.8/1.4) > 1e-5 {
		t.Errorf("confidence %g, want %g", v.Category.Confidence, .8/1.4)
	}
}

func TestVerdictUnderflow(t *testing.T) {
	d := testDecider(false)
	a := d.newAggregate()
	for range 5 {
		a.add(rows([]float32{0, 0, 0}, nil))
	}
	if c := d.verdict(a, false).Category.Confidence; !(c > .33 && c < .34) {
		t.Errorf("confidence %g after outputs that underflowed", c)
	}
}

func TestVerdictGrowthAndFloor(t *testing.T) {
	d := testDecider(false)
	d.heads[0].growth, d.heads[0].floor = 0, .1
	a := d.newAggregate()
	a.add(rows([]float32{.6, .4, 0}, nil))
	a.add(rows([]float32{.8, .2, 0}, nil))
	// The plain product, with .1 in place of 0.
	if want, got := .48/(.48+.08+.01), d.verdict(a, false).Category.Confidence; math.Abs(got-want) > 1e-6 {
		t.Errorf("confidence %g, want %g", got, want)
	}
}

func TestVerdictFinal(t *testing.T) {
	sure, unsure := []float32{.98, .01, .01}, []float32{.5, .25, .25}
	even, sureApp := []float32{.5, .5}, []float32{.995, .005}

	d := testDecider(true)
	a := d.newAggregate()
	a.add(rows(sure, even))
	if d.verdict(a, false).Final {
		t.Error("final although one task is not confident")
	}
	a.add(rows(sure, sureApp))
	if v := d.verdict(a, false); !v.Final || v.Category.Label != "chat" || v.App.Label != "skype" {
		t.Errorf("%+v, want a final chat, skype: both tasks are confident", v)
	}

	d.samples = 2
	a = d.newAggregate()
	a.add(rows(unsure, even))
	if v := d.verdict(a, false); v.Final || v.App.Label != "skype" {
		t.Errorf("%+v, want a provisional verdict: no task is unknown before the end", v)
	}
	if v := d.verdict(a, true); !v.Final || v.App.Label != flow.Unknown {
		t.Errorf("%+v, want it final as the last sample", v)
	}
	a.add(rows(unsure, even))
	v := d.verdict(a, false)
	if !v.Final || v.Category.Label != "chat" || v.App.Label != flow.Unknown {
		t.Errorf("%+v, want a final chat and unknown: the budget is spent", v)
	}
	if v.App.Confidence != .5 {
		t.Errorf("unknown has confidence %g, want that of the likeliest label", v.App.Confidence)
	}
}

func TestDeciderSettings(t *testing.T) {
	category := &Model{Manifest: Manifest{Name: "c", Task: []Task{Category}, Labels: map[Task][]string{Category: {"a", "b"}},
		Temperature: map[Task]float64{Category: 1.5}, UnknownThreshold: map[Task]float64{Category: .3}, FinalConfidence: .9, Samples: 3, Growth: .5, Floor: 1e-6}}
	app := &Model{Manifest: Manifest{Name: "a", Task: []Task{App}, Labels: map[Task][]string{App: {"x", "y"}},
		Temperature: map[Task]float64{App: 1}, UnknownThreshold: map[Task]float64{App: .7}, FinalConfidence: .99, Samples: 7}}

	d := newDecider([]*Model{app, category}, 0, .5)
	if d.samples != 7 {
		t.Errorf("budget %d, want the larger of the two models'", d.samples)
	}
	if h := d.heads[0]; h.model != "c" || h.unknown != .5 || h.final != .9 || h.temperature != 1.5 || h.growth != .5 || h.floor != 1e-6 {
		t.Errorf("category: %+v", h)
	}
	if h := d.heads[1]; h.model != "a" || h.unknown != .7 || h.final != .99 {
		t.Errorf("app: %+v", h)
	}
	d = newDecider([]*Model{category}, 4, .97)
	if d.samples != 4 || d.heads[0].final != .97 || d.heads[1] != nil {
		t.Errorf("samples %d, final %g, app %v", d.samples, d.heads[0].final, d.heads[1])
	}
}
