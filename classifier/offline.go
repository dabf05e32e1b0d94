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

// Probabilities are the outputs of the models, by task: for each vector a row with a
// probability for each label. A task that no model has is nil.
type Probabilities [flow.NumTasks][][]float32

// Slice returns the rows of the vectors from begin to before end.
func (p *Probabilities) Slice(begin, end int) Probabilities {
	var part Probabilities
	for t, rows := range p {
		if rows != nil {
			part[t] = rows[begin:end:end]
		}
	}
	return part
}

// Append adds the rows of more vectors.
func (p *Probabilities) Append(more Probabilities) {
	for t, rows := range more {
		p[t] = append(p[t], rows...)
	}
}

// row returns the rows of one vector.
func (p *Probabilities) row(i int) (rows [flow.NumTasks][]float32) {
	for t, all := range p {
		if all != nil {
			rows[t] = all[i]
		}
	}
	return rows
}

// Vector returns what the models read of an IP packet: 1500 bytes from the IP header
// on, addresses and checksums zeroed, cut or padded with zeros.
func Vector(packet []byte) []byte {
	var v [vector.Size]byte
	vector.Make(&v, packet, false)
	return v[:]
}

// Probabilities runs the models over vectors (see [Vector]), in batches and on all
// CPUs; a single batch runs on the caller's thread. The rows have the order of the
// vectors.
func (c *Classifier) Probabilities(vectors [][]byte) (Probabilities, error) {
	for i, v := range vectors {
		if len(v) != vector.Size {
			return Probabilities{}, fmt.Errorf("vector %d has %d bytes, want %d", i, len(v), vector.Size)
		}
	}
	// A swap waits until this is done with the runners.
	c.inUse.RLock()
	defer c.inUse.RUnlock()
	runners, d := c.runners()
	p := d.newProbabilities(len(vectors))
	batch := c.options.Batch
	failed := make([]error, (len(vectors)+batch-1)/batch)
	run := func(r *runner, i int) {
		begin := i * batch
		failed[i] = r.fill(&p, vectors, begin, min(begin+batch, len(vectors)))
		runners <- r
	}
	if len(failed) == 1 {
		run(<-runners, 0)
		return p, failed[0]
	}
	var group sync.WaitGroup
	for i := range failed {
		r := <-runners
		group.Go(func() { run(r, i) })
	}
	group.Wait()
	return p, errors.Join(failed...)
}

// newProbabilities makes room for the rows of n vectors.
func (d *decider) newProbabilities(n int) (p Probabilities) {
	for t, h := range d.heads {
		if h == nil {
			continue
		}
		width := len(h.labels)
		flat := make([]float32, n*width)
		p[t] = make([][]float32, n)
		for i := range p[t] {
			p[t][i] = flat[i*width : (i+1)*width : (i+1)*width]
		}
	}
	return p
}

// fill runs the vectors from begin to before end and writes their rows.
func (r *runner) fill(p *Probabilities, vectors [][]byte, begin, end int) error {
	for i := begin; i < end; i++ {
		copy(r.vector(i - begin)[:], vectors[i])
	}
	if err := r.run(end - begin); err != nil {
		return err
	}
	for i := begin; i < end; i++ {
		for t, row := range r.row(i - begin) {
			if row != nil {
				copy(p[t][i], row)
			}
		}
	}
	return nil
}

// Decide returns the verdicts on a flow whose samples have these rows, as a live flow
// gets them that has no more packets: the same order, the same budget, the same early
// stop. samples is how many of them were looked at.
func (c *Classifier) Decide(p *Probabilities) (verdicts flow.Verdicts, samples int) {
	d := c.decider()
	n := 0
	for _, rows := range p {
		n = max(n, len(rows))
	}
	a := d.newAggregate()
	for i := range min(n, d.samples) {
		d.add(a, p.row(i))
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
// rejecting: the likeliest label of a task, by its index, and its confidence. The
// index is -1 where there is no row, or no model has the task. It is what the
// evaluation scores.
func (c *Classifier) Likeliest(task flow.Task, rows [][]float32) (index int, confidence float64) {
	d := c.decider()
	if d.heads[task] == nil || len(rows) == 0 {
		return -1, 0
	}
	a := &aggregate{}
	a.sums[task] = make([]float64, len(d.heads[task].labels))
	for _, row := range rows {
		var one [flow.NumTasks][]float32
		one[task] = row
		d.add(a, one)
	}
	return d.likeliest(a, task)
}

// Rejects reports whether a final verdict of this confidence is flow.Unknown.
func (c *Classifier) Rejects(task flow.Task, confidence float64) bool {
	h := c.decider().heads[task]
	return h != nil && h.rejects(confidence)
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
