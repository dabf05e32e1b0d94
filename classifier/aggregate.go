// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"math"

	"github.com/dpclass/dpclass/internal/flow"
)

// head is what is known of one task: which model gives it, and how its rows are
// read.
type head struct {
	model       string
	labels      []string
	floor       float64 // least probability that a logarithm is taken of
	growth      float64 // power of the number of samples that the temperature grows with
	temperature float64
	unknown     float64 // a final verdict below this is Unknown
	final       float64 // a verdict from this on is final at once
}

// decider combines the probabilities of a flow's samples. It is the same for
// live flows, for captures and for the evaluation.
type decider struct {
	heads   [len(Tasks)]*head // nil: no model has the task
	samples int               // budget
}

// newDecider reads the models' manifests. samples and minConfidence are the
// operator's; 0 leaves what the manifests say.
func newDecider(models []*Model, samples int, minConfidence float64) *decider {
	d := &decider{samples: samples}
	for _, m := range models {
		if samples == 0 {
			d.samples = max(d.samples, m.Samples)
		}
		for t, task := range Tasks {
			if !m.Has(task) {
				continue
			}
			d.heads[t] = &head{
				model:       m.Name,
				labels:      m.Labels[task],
				floor:       m.Floor,
				growth:      m.Growth,
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
// of its samples.
type aggregate struct {
	sums  [len(Tasks)][]float64
	floor [len(Tasks)]float64
	n     int
}

func (d *decider) newAggregate() *aggregate {
	a := &aggregate{}
	for t, h := range d.heads {
		if h != nil {
			a.sums[t] = make([]float64, len(h.labels))
			a.floor[t] = h.floor
		}
	}
	return a
}

func (a *aggregate) reset() {
	for _, sums := range a.sums {
		clear(sums)
	}
	a.n = 0
}

// add takes in the probabilities of one sample.
func (a *aggregate) add(rows [len(Tasks)][]float32) {
	for t, sums := range a.sums {
		row := rows[t]
		for i := range sums {
			sums[i] += math.Log(max(float64(row[i]), a.floor[t]))
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
	scale := temperature * math.Pow(float64(max(a.n, 1)), d.heads[t].growth)
	for _, sum := range sums {
		// Below e^-40 nothing is left of it beside the likeliest label's 1.
		if x := (sum - sums[index]) / scale; x > -40 {
			total += math.Exp(x)
		}
	}
	return index, 1 / total
}

// verdict returns the verdict on the evidence so far. It is final once every
// task is confident enough, or where last says that no more samples come; then
// a task that is not confident enough is Unknown.
func (d *decider) verdict(a *aggregate, last bool) flow.Verdict {
	var v flow.Verdict
	var verdicts [len(Tasks)]flow.TaskVerdict
	v.Final = true
	for t, h := range d.heads {
		if h == nil {
			continue
		}
		index, confidence := d.likeliest(a, t)
		verdicts[t] = flow.TaskVerdict{Label: h.labels[index], Confidence: confidence, Source: flow.SourceModel, Model: h.model}
		v.Final = v.Final && confidence >= h.final
	}
	v.Final = v.Final || last || a.n >= d.samples
	if v.Final {
		for t, h := range d.heads {
			if h != nil && verdicts[t].Confidence < h.unknown {
				verdicts[t].Label = flow.Unknown
			}
		}
	}
	v.Category, v.App = verdicts[0], verdicts[1]
	return v
}
