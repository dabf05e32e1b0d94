// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"container/list"

	"github.com/dpclass/dpclass/classifier/wire"
	"github.com/dpclass/dpclass/flow"
)

// state is what a worker knows of a flow.
type state struct {
	id         flow.ID
	clues      clues
	networks   *aggregate    // what the networks said; nil before they were asked, and once the flow is settled
	asked      int           // samples that went to the networks
	settled    bool          // its verdicts do not change any more
	missed     bool          // the flow's first sample never came here
	prev, next *state        // by last use
	holds      *list.Element // in table.holders
}

// table holds the states of the flows of one shard, at most max of them. The least
// recently used goes first. A settled flow stays as long, with little memory, so that
// samples that were on the way when it was decided change nothing.
type table struct {
	judge  *judge
	max    int
	states map[flow.ID]*state
	recent state        // the list's end: next is the latest used, prev the oldest
	spare  []*aggregate // for reuse
	free   []*state     // for reuse

	holders list.List // *state of flows that hold a buffer of wire, since the oldest took one
}

// spareMax bounds what is kept for reuse.
const spareMax = 1024

func newTable(j *judge, limit int) *table {
	t := &table{judge: j, max: limit, states: map[flow.ID]*state{}}
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
		*s = state{id: id, missed: index > 0}
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

// aggregate returns an empty aggregate.
func (t *table) aggregate() *aggregate {
	if n := len(t.spare); n > 0 {
		a := t.spare[n-1]
		t.spare = t.spare[:n-1]
		a.reset()
		return a
	}
	return t.judge.newAggregate()
}

// bound notes whether the flow holds a buffer of wire. If too many do, the one that has
// held it longest gives it up: a real message is complete within a few packets.
func (t *table) bound(s *state) {
	switch holds := s.clues.wire.Holds(); {
	case holds && s.holds == nil:
		s.holds = t.holders.PushBack(s)
	case !holds && s.holds != nil:
		t.holders.Remove(s.holds)
		s.holds = nil
	}
	for wire.Crowded() && t.holders.Len() > 1 {
		oldest := t.holders.Front().Value.(*state)
		t.holders.Remove(oldest.holds)
		oldest.holds = nil
		oldest.clues.wire.GiveUp()
	}
}

// settle drops what is known of a flow whose verdicts do not change any more.
func (t *table) settle(s *state) {
	if s.networks != nil && len(t.spare) < spareMax {
		t.spare = append(t.spare, s.networks)
	}
	s.networks = nil
	s.clues.wire.Release()
	t.bound(s)
	s.clues = clues{}
	s.settled = true
}

func (t *table) remove(s *state) {
	s.prev.next, s.next.prev = s.next, s.prev
	delete(t.states, s.id)
	t.settle(s)
	// A batch on its way may still point here: it must not find its flow.
	*s = state{}
	if len(t.free) < spareMax {
		t.free = append(t.free, s)
	}
}

// clear forgets all flows. What wire keeps of them is shared by all classifiers.
func (t *table) clear() {
	for t.recent.next != &t.recent {
		t.remove(t.recent.next)
	}
}

func (t *table) forget(id flow.ID) {
	if s := t.states[id]; s != nil {
		t.remove(s)
	}
}

// restart takes new models. What the packets said by themselves stays: the first packets
// of a flow do not come again. So do verdicts that are final, for each task.
func (t *table) restart(j *judge) {
	t.judge = j
	t.spare = nil // as wide as the labels of the models before
	for s := t.recent.next; s != &t.recent; s = s.next {
		if s.settled {
			continue
		}
		old := s.networks
		s.networks, s.asked, s.missed = nil, 0, false
		if old != nil && old.final != (flow.Verdicts{}) {
			s.networks = j.newAggregate()
			s.networks.final = old.final
		}
	}
}
