// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"github.com/dpclass/dpclass/flow"
)

// state is what a worker knows of a flow.
type state struct {
	id         flow.ID
	evidence   *aggregate // nil once the verdicts are final
	missed     bool       // the flow's first sample never came here
	prev, next *state     // by last use
}

// table holds the states of the flows of one shard, at most max of them: the
// one that was not used for the longest time goes first. A decided flow stays as
// long, without its evidence, so that samples that were on the way when it was
// decided change nothing.
type table struct {
	decider *decider
	max     int
	states  map[flow.ID]*state
	recent  state        // the list's end: next is the latest used, prev the oldest
	spare   []*aggregate // evidence for reuse
	free    []*state     // states for reuse
}

// spareMax bounds what is kept for reuse.
const spareMax = 1024

func newTable(d *decider, limit int) *table {
	t := &table{decider: d, max: limit, states: map[flow.ID]*state{}}
	t.recent.prev, t.recent.next = &t.recent, &t.recent
	return t
}

// get returns the state of a flow, a new one where there is none. index is the
// sample's index in the flow.
func (t *table) get(id flow.ID, index int) *state {
	s := t.states[id]
	if s == nil {
		if len(t.states) >= t.max {
			t.remove(t.recent.prev)
		}
		s = t.state()
		*s = state{id: id, evidence: t.aggregate(), missed: index > 0}
		t.states[id] = s
	} else {
		s.prev.next, s.next.prev = s.next, s.prev
	}
	s.prev, s.next = &t.recent, t.recent.next
	s.prev.next, s.next.prev = s, s
	return s
}

func (t *table) state() *state {
	if n := len(t.free); n > 0 {
		s := t.free[n-1]
		t.free = t.free[:n-1]
		return s
	}
	return &state{}
}

// aggregate returns empty evidence.
func (t *table) aggregate() *aggregate {
	if n := len(t.spare); n > 0 {
		a := t.spare[n-1]
		t.spare = t.spare[:n-1]
		a.reset()
		return a
	}
	return t.decider.newAggregate()
}

// decided drops the evidence of a flow whose verdicts are final.
func (t *table) decided(s *state) {
	if len(t.spare) < spareMax {
		t.spare = append(t.spare, s.evidence)
	}
	s.evidence = nil
}

func (t *table) remove(s *state) {
	s.prev.next, s.next.prev = s.next, s.prev
	delete(t.states, s.id)
	if s.evidence != nil {
		t.decided(s)
	}
	// A batch on its way may still point here: it must not find its flow.
	*s = state{}
	if len(t.free) < spareMax {
		t.free = append(t.free, s)
	}
}

func (t *table) forget(id flow.ID) {
	if s := t.states[id]; s != nil {
		t.remove(s)
	}
}

// restart takes a new decider. Verdicts that are final stay, for each task; otherwise
// flows begin again.
func (t *table) restart(d *decider) {
	t.decider = d
	t.spare = nil // as wide as the labels of the models before
	for s := t.recent.next; s != &t.recent; {
		next := s.next
		if s.evidence != nil {
			final := s.evidence.final
			s.evidence = nil
			if final == (flow.Verdicts{}) {
				t.remove(s)
			} else {
				s.evidence, s.missed = d.newAggregate(), false
				s.evidence.final = final
			}
		}
		s = next
	}
}
