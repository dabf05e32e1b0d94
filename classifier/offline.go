// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/dpclass/dpclass/classifier/addressbook"
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
	p, flat := d.newProbabilities(len(vectors))
	batch := c.options.Batch
	failed := make([]error, (len(vectors)+batch-1)/batch)
	run := func(r *runner, i int) {
		begin := i * batch
		if failed[i] = r.runVectors(vectors[begin:min(begin+batch, len(vectors))]); failed[i] == nil {
			for t, width := range r.width {
				copy(flat[t][begin*width:], r.outputs[t])
			}
		}
		runners.put(r)
	}
	if len(failed) == 1 {
		run(runners.take(), 0)
		return p, failed[0]
	}
	var group sync.WaitGroup
	for i := range failed {
		r := runners.take()
		group.Go(func() { run(r, i) })
	}
	group.Wait()
	return p, errors.Join(failed...)
}

// newProbabilities makes room for the rows of n vectors; flat has those of a task one
// after the other.
func (d *decider) newProbabilities(n int) (p Probabilities, flat [flow.NumTasks][]float32) {
	for t, h := range d.heads {
		if h == nil {
			continue
		}
		width := len(h.labels)
		flat[t] = make([]float32, n*width)
		p[t] = make([][]float32, n)
		for i := range p[t] {
			p[t][i] = flat[t][i*width : (i+1)*width : (i+1)*width]
		}
	}
	return p, flat
}

// Decide returns the verdicts on a flow whose samples have these rows, as a live flow
// gets them that has no more packets: the same order, the same budget, the same early
// stop. What the packets said by themselves is in trail; nil leaves it to the models.
// samples is how many packets were looked at.
func (c *Classifier) Decide(p *Probabilities, trail *Trail) (verdicts flow.Verdicts, evidence flow.Evidence, samples int) {
	d := c.decider()
	n := 0
	for _, rows := range p {
		n = max(n, len(rows))
	}
	n = min(n, d.samples)
	if trail == nil || trail.judge.use == EvidenceModel {
		a := d.newAggregate()
		for i := range n {
			d.add(a, p.row(i))
			// A live flow that has fewer packets than the budget stays provisional:
			// so does this one.
			var settled bool
			if verdicts, settled = d.verdicts(a, false, false); settled {
				break
			}
		}
		return verdicts, evidence, a.n
	}
	j := trail.judge
	var a *aggregate
	for i, step := range trail.steps {
		known := clues{evidence: step.evidence, found: step.found, seen: i + 1, inner: trail.clues.inner}
		evidence, samples = known.evidence, i+1
		if j.asksNetwork(&known) && i < n {
			if a == nil {
				a = d.newAggregate()
			}
			d.add(a, p.row(i))
		}
		var settled bool
		if verdicts, settled = j.verdicts(a, &known, false); settled {
			break
		}
	}
	if a != nil && verdicts[flow.Category].Source == flow.SourceModel {
		samples = a.n
	}
	return verdicts, evidence, samples
}

// Reading is the reading of one capture: what its packets say by themselves, and what its
// DNS answers and earlier flows say about later flows.
type Reading struct {
	judge *judge
}

// Reading returns a reading that knows nothing yet.
func (c *Classifier) Reading() *Reading {
	d := c.decider()
	return &Reading{&judge{
		decider: d, use: c.options.Evidence, names: c.options.Names, book: addressbook.New(serviceOf(c.options.Names)), budget: c.budget(d),
	}}
}

// Answer reads a DNS answer of the capture, as [Classifier.Answer] does.
func (r *Reading) Answer(message []byte, now time.Time) error {
	_, err := r.judge.book.Answer(message, now)
	return err
}

// Flow begins a flow of the capture. The caller closes it after its last packet.
func (r *Reading) Flow() *Trail { return &Trail{judge: r.judge} }

// Trail is what was known of a flow of a capture after each of its payload packets.
type Trail struct {
	judge *judge
	known flow.Evidence // a name from elsewhere, for a flow without one of its own
	clues clues
	steps []step
}

type step struct {
	evidence flow.Evidence
	found    conclusion
}

// Add reads the flow's next payload packet. It reports whether more packets are wanted.
// The sample's packet has its addresses zeroed or not.
func (t *Trail) Add(s *flow.Sample) (more bool) {
	if len(t.steps) >= t.judge.budget {
		return false
	}
	t.judge.add(&t.clues, s)
	if t.clues.evidence.Name == "" && t.known.Name != "" {
		t.clues.evidence.Name, t.clues.evidence.NameSource = t.known.Name, t.known.NameSource
		t.clues.found = t.judge.conclude(&t.clues)
	}
	t.steps = append(t.steps, step{t.clues.evidence, t.clues.found})
	return len(t.steps) < t.judge.budget
}

// Close ends the flow: it frees what was kept of a message that is not complete. The
// verdicts on the flow stay.
func (t *Trail) Close() { t.clues.wire.Release() }

// Signature says in words by what the protocol was recognised, "" if it was not.
func (t *Trail) Signature() string { return t.clues.wire.Signature() }

// Score returns the label of a task that the evaluation scores: the one that names and
// protocols decide, else the likeliest one by all rows, without an early stop and without
// rejecting. The label is "" where nothing decides the task. confidence is 1 where no
// network was needed.
func (c *Classifier) Score(task flow.Task, p *Probabilities, trail *Trail) (label string, source flow.Source, confidence float64) {
	found := trail.clues.found
	if found.category == "" {
		index, confidence := c.Likeliest(task, p[task])
		if index < 0 {
			return "", flow.SourceNone, 0
		}
		return c.Labels(task)[index], flow.SourceModel, confidence
	}
	if task == flow.App {
		return found.app, found.appSource, 1
	}
	j := trail.judge
	if j.prefixed(&trail.clues) {
		a := j.newAggregate()
		for i := range p[task] {
			j.decider.add(a, p.row(i))
		}
		if inner, _ := j.inner(a, true); inner {
			return inVPN(found.category), found.categorySource, 1
		}
	}
	return found.category, found.categorySource, 1
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

// runVectors runs up to a batch of vectors.
func (r *runner) runVectors(vectors [][]byte) error {
	for i, v := range vectors {
		copy(r.vector(i)[:], v)
	}
	return r.run(len(vectors), batchLimit)
}

// runners returns the offline runners, one for each CPU.
func (c *Classifier) runners() (*pool, *decider) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.offline == nil {
		c.offline = newPool(c.engine, c.options.Batch, runtime.GOMAXPROCS(0))
	}
	return c.offline, c.engine.decider
}

// closeOffline frees the offline runners. c.inUse and c.mu are held.
func (c *Classifier) closeOffline() {
	if c.offline != nil {
		c.offline.close()
		c.offline = nil
	}
}

// pool lends runners. The one that came back last goes out first: its buffers are still
// in the CPU's cache.
type pool struct {
	free chan struct{} // a token for each runner of idle
	mu   sync.Mutex
	idle []*runner
}

func newPool(e *engine, batch, n int) *pool {
	p := &pool{free: make(chan struct{}, n)}
	for range n {
		p.put(newRunner(e, batch))
	}
	return p
}

// take waits for a runner that is free.
func (p *pool) take() *runner {
	<-p.free
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return r
}

// put gives a runner back.
func (p *pool) put(r *runner) {
	p.mu.Lock()
	p.idle = append(p.idle, r)
	p.mu.Unlock()
	p.free <- struct{}{}
}

// close frees the runners. All of them have come back.
func (p *pool) close() {
	for _, r := range p.idle {
		r.close()
	}
}
