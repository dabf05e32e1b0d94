// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"math"

	"github.com/dpclass/dpclass/flow"
)

// floor bounds a probability from below before its logarithm is taken (the trainer fits
// temperatures with the same): an output that underflowed must not give -Inf.
const floor = 1e-12

// growth is the power of the number of samples that a temperature grows with: the
// samples of a flow say much the same, and five agreeing ones are not five times as
// sure. Chosen on validation parts (docs/decisions.md); the trainer fits temperatures with
// the same.
const growth = 0.8

// head is what is known of one task: which model gives it, and how its rows are
// read.
type head struct {
	model       string
	labels      []string
	temperature float64
	unknown     float64 // a final verdict below this is Unknown
	final       float64 // a verdict from this on is final at once
}

// decider combines the probabilities of a flow's samples. It is the same for
// live flows, for captures and for the evaluation.
type decider struct {
	heads   [flow.NumTasks]*head // nil: no model has the task
	samples int                  // budget
}

// newDecider reads the models' manifests. samples and minConfidence are the
// operator's; 0 leaves what the manifests say.
func newDecider(models []*Model, samples int, minConfidence float64) *decider {
	d := &decider{samples: samples}
	for _, m := range models {
		if samples == 0 {
			d.samples = max(d.samples, m.Samples)
		}
		for t, task := range flow.Tasks {
			if !m.Has(task) {
				continue
			}
			d.heads[t] = &head{
				model:       m.Name,
				labels:      m.Labels[task],
				temperature: m.Temperature[task],
				unknown:     max(m.UnknownThreshold[task], minConfidence),
				// More samples may still lift a verdict over a high --min-confidence.
				final: max(m.FinalConfidence, minConfidence),
			}
		}
	}
	return d
}

// aggregate is one flow's evidence: for each task the sum of the log-probabilities
// of its samples, and the verdict once it is final.
type aggregate struct {
	sums  [flow.NumTasks][]float64
	n     int
	final flow.Verdicts
}

func (d *decider) newAggregate() *aggregate {
	a := &aggregate{}
	for t, h := range d.heads {
		if h != nil {
			a.sums[t] = make([]float64, len(h.labels))
		}
	}
	return a
}

func (a *aggregate) reset() {
	for _, sums := range a.sums {
		clear(sums)
	}
	a.n = 0
	a.final = flow.Verdicts{}
}

// add takes in the probabilities of one sample.
func (a *aggregate) add(rows [flow.NumTasks][]float32) {
	for t, sums := range a.sums {
		row := rows[t]
		for i := range sums {
			sums[i] += math.Log(max(float64(row[i]), floor))
		}
	}
	a.n++
}

// likeliest returns the likeliest label of a task and its probability: the softmax
// of the sums over a temperature that grows with the samples.
func (d *decider) likeliest(a *aggregate, t int) (index int, confidence float64) {
	sums, temperature := a.sums[t], d.heads[t].temperature
	for i, sum := range sums {
		if sum > sums[index] {
			index = i
		}
	}
	total := 0.0
	scale := temperature * math.Pow(float64(max(a.n, 1)), growth)
	for _, sum := range sums {
		// Below e^-40 nothing is left of it beside the likeliest label's 1.
		if x := (sum - sums[index]) / scale; x > -40 {
			total += math.Exp(x)
		}
	}
	return index, 1 / total
}

// verdicts returns the verdicts on the evidence so far. A task's verdict is final
// once it is confident enough, and stays as it is; last says that no more
// samples come, and makes the others final too. A final verdict that is not
// confident enough is Unknown. settled is true once all of them are final.
func (d *decider) verdicts(a *aggregate, last bool) (v flow.Verdicts, settled bool) {
	last = last || a.n >= d.samples
	settled = true
	for t, h := range d.heads {
		switch {
		case h == nil:
			continue
		case a.final[t].Final:
			v[t] = a.final[t]
			continue
		}
		index, confidence := d.likeliest(a, t)
		v[t] = flow.Verdict{Label: h.labels[index], Confidence: confidence, Source: flow.SourceModel, Model: h.model}
		if !last && confidence < h.final {
			settled = false
			continue
		}
		if confidence < h.unknown {
			v[t].Label = flow.Unknown
		}
		v[t].Final = true
		a.final[t] = v[t]
	}
	return v, settled
}
