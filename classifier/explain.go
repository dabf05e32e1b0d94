// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"fmt"
	"slices"

	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// Explanation says why a flow has its verdicts.
type Explanation struct {
	Verdicts  flow.Verdicts
	Evidence  flow.Evidence
	Signature string         // by what the protocol was recognised; "" if it was not
	Service   *names.Service // the catalogue's line for the name; nil: not listed
	Asked     bool           // the networks had a part in the verdicts
	Samples   int            // payload packets that the verdicts rest on
	Networks  [flow.NumTasks]Opinion
	Parts     []Part // of the packets that the networks read, the ones that matter most first
}

// Opinion is what a network says about one task.
type Opinion struct {
	Model string
	Top   []Likelihood // the likeliest labels first, at most three; nil: no model has the task
}

// Likelihood is a label with its probability.
type Likelihood struct {
	Label       string  `json:"label"`
	Probability float64 `json:"probability"`
}

// Part is a header field or a few payload bytes of one sample.
type Part struct {
	Sample int    `json:"sample"` // from 0
	Name   string `json:"name"`   // of the header field, or "payload"
	Offset int    `json:"offset"` // bytes from the IP header on, in the packet
	Length int    `json:"length"` // bytes
	// Effect is how much the probability of the network's likeliest category (of its
	// application, if it has no categories) falls when these bytes are set to zero in
	// this sample. It is negative if they speak against the label.
	Effect float64 `json:"effect"`
}

const (
	topLabels   = 3
	windowBytes = 8   // payload bytes that are set to zero at a time
	maxOccluded = 256 // payload bytes of a sample that are looked at
)

// Explain gives verdicts on the samples of one flow, in their order, and says why. A
// server name that other flows or DNS answers gave is in known; it counts where the
// samples have none.
func (c *Classifier) Explain(samples []flow.Sample, known flow.Evidence) (*Explanation, error) {
	reading := c.Reading()
	trail := reading.Flow()
	defer trail.Close()
	trail.known = known
	var vectors [][]byte
	for i := range samples {
		trail.Add(&samples[i])
		if len(vectors) < c.Samples() {
			vectors = append(vectors, Vector(samples[i].Packet))
		}
	}
	rows, err := c.Probabilities(vectors)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Signature: trail.Signature()}
	e.Verdicts, e.Evidence, e.Samples = c.Decide(&rows, trail)
	if e.Evidence.Name == "" {
		e.Evidence.Name, e.Evidence.NameSource = known.Name, known.NameSource
	}
	if service, listed := c.options.Names.Lookup(e.Evidence.Name); listed {
		e.Service = &service
	}
	for t := range e.Verdicts {
		e.Asked = e.Asked || e.Verdicts[t].Source == flow.SourceModel
	}
	e.Asked = e.Asked || reading.judge.prefixed(&trail.clues)
	if len(vectors) == 0 {
		return e, nil
	}
	d := c.decider()
	used := len(vectors)
	if e.Asked && e.Samples > 0 {
		used = min(used, e.Samples) // the others came after the verdict
	}
	rows = rows.Slice(0, used)
	a := d.newAggregate()
	for i := range used {
		d.add(a, rows.row(i))
	}
	for t, h := range d.heads {
		if h != nil {
			e.Networks[t] = Opinion{Model: h.model, Top: d.top(a, flow.Task(t))}
		}
	}
	if e.Parts, err = c.occlude(d, samples[:used], vectors[:used], &rows); err != nil {
		return nil, err
	}
	return e, nil
}

// top returns the likeliest labels of a task.
func (d *decider) top(a *aggregate, t flow.Task) []Likelihood {
	var all []Likelihood
	for i, p := range d.distribution(a, t) {
		all = append(all, Likelihood{d.heads[t].labels[i], p})
	}
	slices.SortStableFunc(all, func(a, b Likelihood) int {
		switch {
		case a.Probability > b.Probability:
			return -1
		case a.Probability < b.Probability:
			return 1
		}
		return 0
	})
	return all[:min(len(all), topLabels)]
}

// occlude measures how much each part of the samples moves the networks: it sets the part
// to zero in one sample and runs that sample again.
func (c *Classifier) occlude(d *decider, samples []flow.Sample, vectors [][]byte, rows *Probabilities) ([]Part, error) {
	task := flow.Category
	if d.heads[task] == nil {
		task = flow.App
	}
	probability := func(rows *Probabilities, replaced int, by [flow.NumTasks][]float32, label int) (float64, int) {
		a := d.newAggregate()
		for i := range vectors {
			if i == replaced {
				d.add(a, by)
			} else {
				d.add(a, rows.row(i))
			}
		}
		if label < 0 {
			label, _ = d.likeliest(a, task)
		}
		return d.distribution(a, task)[label], label
	}
	base, label := probability(rows, -1, [flow.NumTasks][]float32{}, -1)
	var parts []Part
	var changed [][]byte
	for i := range samples {
		for _, f := range vector.Fields(samples[i].Packet, samples[i].Length) {
			parts, changed = occludeOne(parts, changed, vectors[i], Part{Sample: i, Name: f.Name, Offset: f.Offset, Length: f.Length}, f.InVector)
		}
		p, reason := vector.Parse(samples[i].Packet, samples[i].Length)
		if reason != vector.OK {
			continue
		}
		shift := p.VectorPayload() - p.Payload
		end := min(p.Captured, maxOccluded)
		for from := 0; from < end; from += windowBytes {
			at := p.Payload + from
			part := Part{Sample: i, Name: "payload", Offset: at, Length: min(windowBytes, end-from)}
			parts, changed = occludeOne(parts, changed, vectors[i], part, at+shift)
		}
	}
	again, err := c.Probabilities(changed)
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	for i := range parts {
		without, _ := probability(rows, parts[i].Sample, again.row(i), label)
		parts[i].Effect = base - without
	}
	slices.SortStableFunc(parts, func(a, b Part) int {
		switch x, y := max(a.Effect, -a.Effect), max(b.Effect, -b.Effect); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	return parts, nil
}

// occludeOne appends a part and the sample's vector without it, unless the part is all
// zeros or lies beyond the vector.
func occludeOne(parts []Part, changed [][]byte, v []byte, part Part, inVector int) ([]Part, [][]byte) {
	if inVector+part.Length > len(v) || !slices.ContainsFunc(v[inVector:inVector+part.Length], func(b byte) bool { return b != 0 }) {
		return parts, changed
	}
	without := slices.Clone(v)
	clear(without[inVector : inVector+part.Length])
	return append(parts, part), append(changed, without)
}
