// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"math"
	"slices"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
)

// head is one task's output: which model has it, and how its rows are read.
type head struct {
	model       string
	labels      []string
	floor       float64 // probabilities below it count as it, before the logarithm is taken
	growth      float64 // power of the number of samples that the temperature grows with
	temperature float64
	unknown     float64 // a final verdict less confident than this is Unknown
	final       float64 // a verdict at least as confident as this is final at once
}

// decider combines the probabilities of a flow's samples. It is the same for
// live flows, for captures and for the evaluation.
type decider struct {
	heads   [flow.NumTasks]*head // nil: no model has the task
	samples int                  // budget
	own     bool                 // a model has labels that its user made up: names and protocols cannot decide
}

// rejects reports whether a final verdict of this confidence is Unknown.
func (h *head) rejects(confidence float64) bool { return confidence < h.unknown }

// newDecider reads the models' manifests. samples and minConfidence are the
// operator's; 0 leaves what the manifests say.
func newDecider(models []*model.Model, samples int, minConfidence float64) *decider {
	d := &decider{samples: samples}
	for _, m := range models {
		if samples == 0 {
			d.samples = max(d.samples, m.Samples)
		}
		for t, task := range flow.Tasks {
			if !m.Has(task) {
				continue
			}
			d.own = d.own || slices.ContainsFunc(m.Labels[task], func(label string) bool { return !slices.Contains(task.Labels(), label) })
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

// aggregate is what the networks said of one flow: for each task the sum of the log-probabilities
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

// add adds the probabilities of one sample to a flow's evidence.
func (d *decider) add(a *aggregate, rows [flow.NumTasks][]float32) {
	for t, sums := range a.sums {
		row := rows[t]
		for i := range sums {
			sums[i] += math.Log(max(float64(row[i]), d.heads[t].floor))
		}
	}
	a.n++
}

// scale returns what the sums of log-probabilities are divided by: the temperature, which
// grows with the number of samples.
func (d *decider) scale(a *aggregate, t flow.Task) float64 {
	h := d.heads[t]
	return h.temperature * math.Pow(float64(max(a.n, 1)), h.growth)
}

// likeliest returns the likeliest label of a task and its probability: the softmax
// of the sums over a temperature that grows with the samples.
func (d *decider) likeliest(a *aggregate, t flow.Task) (index int, confidence float64) {
	sums := a.sums[t]
	for i, sum := range sums {
		if sum > sums[index] {
			index = i
		}
	}
	total := 0.0
	scale := d.scale(a, t)
	for _, sum := range sums {
		// The likeliest label adds 1; e^-40 is too small to change the sum.
		if x := (sum - sums[index]) / scale; x > -40 {
			total += math.Exp(x)
		}
	}
	return index, 1 / total
}

// distribution returns the probabilities of a task's labels, in their order.
func (d *decider) distribution(a *aggregate, t flow.Task) []float64 {
	best, confidence := d.likeliest(a, t)
	scale := d.scale(a, t)
	shares := make([]float64, len(a.sums[t]))
	for i, sum := range a.sums[t] {
		shares[i] = math.Exp((sum-a.sums[t][best])/scale) * confidence
	}
	return shares
}

// verdicts returns the verdicts on the networks' outputs so far. A task's verdict is final
// once it is confident enough, and does not change after that; last says that no more
// samples come, which makes the others final too. With hold, no verdict becomes final:
// the packets may still say more by themselves. A final verdict that is not confident
// enough is Unknown. settled reports whether all of them are final.
func (d *decider) verdicts(a *aggregate, last, hold bool) (v flow.Verdicts, settled bool) {
	last = last || a.n >= d.samples
	settled = true
	v = a.final
	for t, h := range d.heads {
		if h == nil || v[t].Final {
			continue
		}
		index, confidence := d.likeliest(a, flow.Task(t))
		v[t] = flow.Verdict{Label: h.labels[index], Confidence: confidence, Source: flow.SourceModel, Model: h.model}
		if hold || !last && confidence < h.final {
			settled = false
			continue
		}
		if h.rejects(confidence) {
			v[t].Label = flow.Unknown
		}
		v[t].Final = true
		a.final[t] = v[t]
	}
	return v, settled
}
