// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// Probabilities are the outputs of the models: for each vector a row with a
// probability for each label. A task that no model has is nil.
type Probabilities struct {
	Category, App [][]float32
}

// Of returns the rows of a task.
func (p *Probabilities) Of(task flow.Task) [][]float32 {
	if task == flow.App {
		return p.App
	}
	return p.Category
}

// Slice returns the rows of the vectors from begin to before end.
func (p *Probabilities) Slice(begin, end int) Probabilities {
	var part Probabilities
	if p.Category != nil {
		part.Category = p.Category[begin:end]
	}
	if p.App != nil {
		part.App = p.App[begin:end]
	}
	return part
}

// rows returns the rows of one vector.
func (p *Probabilities) rows(i int) (rows [flow.NumTasks][]float32) {
	for t, task := range flow.Tasks {
		if all := p.Of(task); all != nil {
			rows[t] = all[i]
		}
	}
	return rows
}

// Probabilities runs the models over vectors of vector.Size bytes, in batches and on all
// CPUs. The rows stand in the order of the vectors.
func (c *Classifier) Probabilities(vectors [][]byte) (Probabilities, error) {
	var p Probabilities
	for i, v := range vectors {
		if len(v) != vector.Size {
			return p, fmt.Errorf("vector %d has %d bytes, want %d", i, len(v), vector.Size)
		}
	}
	// A swap waits until this is done with the runners.
	c.inUse.RLock()
	defer c.inUse.RUnlock()
	runners, d := c.runners()
	out := [...]*[][]float32{&p.Category, &p.App}
	for t, h := range d.heads {
		if h == nil {
			continue
		}
		width := len(h.labels)
		flat := make([]float32, len(vectors)*width)
		rows := make([][]float32, len(vectors))
		for i := range rows {
			rows[i] = flat[i*width : (i+1)*width : (i+1)*width]
		}
		*out[t] = rows
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for begin := 0; begin < len(vectors); begin += c.options.Batch {
		end := min(begin+c.options.Batch, len(vectors))
		r := <-runners
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() { runners <- r }()
			for i := begin; i < end; i++ {
				copy(r.vector(i - begin)[:], vectors[i])
			}
			if err := r.run(end - begin); err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
				return
			}
			for i := begin; i < end; i++ {
				for t, row := range r.row(i - begin) {
					if row != nil {
						copy((*out[t])[i], row)
					}
				}
			}
		}()
	}
	group.Wait()
	return p, failed
}

// Verdict returns the final verdict on a flow whose samples are the given
// vectors, as a live flow gets it that has no more: the same order, the same
// early stop. samples is how many the verdict rests on.
func (c *Classifier) Verdict(vectors [][]byte) (verdicts flow.Verdicts, samples int, err error) {
	vectors = vectors[:min(len(vectors), c.Samples())]
	p, err := c.Probabilities(vectors)
	if err != nil {
		return verdicts, 0, err
	}
	verdicts, samples = c.Decide(&p)
	return verdicts, samples, nil
}

// Decide is Verdict on probabilities that are there already.
func (c *Classifier) Decide(p *Probabilities) (verdicts flow.Verdicts, samples int) {
	d := c.decider()
	n := min(max(len(p.Category), len(p.App)), d.samples)
	a := d.newAggregate()
	for i := range n {
		a.add(p.rows(i))
		// A live flow that has fewer packets than the budget stays provisional:
		// so does this one.
		var settled bool
		if verdicts, settled = d.verdicts(a, false); settled {
			break
		}
	}
	return verdicts, a.n
}

// Likeliest combines all rows of a flow without an early stop and without
// rejecting: the likeliest label of a task, by its index, and its confidence.
// It is what the evaluation scores.
func (c *Classifier) Likeliest(task flow.Task, rows [][]float32) (index int, confidence float64) {
	d := c.decider()
	t := 0
	if task == flow.App {
		t = 1
	}
	if d.heads[t] == nil || len(rows) == 0 {
		return -1, 0
	}
	a := &aggregate{}
	a.sums[t] = make([]float64, len(d.heads[t].labels))
	for _, row := range rows {
		var all [flow.NumTasks][]float32
		all[t] = row
		a.add(all)
	}
	return d.likeliest(a, t)
}

// Rejects tells whether a final verdict of this confidence is flow.Unknown.
func (c *Classifier) Rejects(task flow.Task, confidence float64) bool {
	for t, h := range c.decider().heads {
		if flow.Tasks[t] == task && h != nil {
			return confidence < h.unknown
		}
	}
	return false
}

// runners returns the offline runners, one for each CPU. A runner that is taken
// out is put back into the same channel.
func (c *Classifier) runners() (chan *runner, *decider) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.offline == nil {
		n := runtime.NumCPU()
		c.offline = make(chan *runner, n)
		for range n {
			c.offline <- newRunner(c.engine, c.options.Batch)
		}
	}
	return c.offline, c.engine.decider
}

// closeOffline frees the offline runners. c.inUse and c.mu are held.
func (c *Classifier) closeOffline() {
	if c.offline == nil {
		return
	}
	for range cap(c.offline) {
		(<-c.offline).close()
	}
	c.offline = nil
}
