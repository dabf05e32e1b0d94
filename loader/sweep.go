// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// ends returns how many flows have ended so far.
func (t *Table) ends() (uint64, error) {
	var n uint64
	if err := t.maps.Sequence.Lookup(bpfSequenceSlotSequenceEnds, &n); err != nil {
		return 0, fmt.Errorf("number of ended flows: %w", err)
	}
	return n, nil
}

// born is how many generations had been given out at some time.
type born struct {
	generations, unborn uint64 // unborn: those that no flow got
}

func (t *Table) born() (b born, err error) {
	for slot, n := range map[bpfSequenceSlot]*uint64{
		bpfSequenceSlotSequenceUnborn: &b.unborn, bpfSequenceSlotSequenceGenerations: &b.generations,
	} {
		if err := t.maps.Sequence.Lookup(slot, n); err != nil {
			return b, fmt.Errorf("number of generations: %w", err)
		}
	}
	return b, nil
}

// evicted returns how many flows left a full table of undecided flows without a record.
// entries are what the tables held after b was read. What ended meanwhile may count twice
// as accounted for, so the result may be a little too low.
func (t *Table) evicted(b born, entries []entry) (uint64, error) {
	ended, err := t.ends()
	if err != nil {
		return 0, err
	}
	accounted := ended + b.unborn
	for n := range entries {
		f := &entries[n].flow
		state := flowState(f.State)
		moving := !entries[n].decided && state.has(bpfFlowStateStatePromoted) // it has another entry
		later := int32(f.Generation-uint32(b.generations)) > 0
		if !moving && !later && !state.has(bpfFlowStateStateReported) {
			accounted++
		}
	}
	return b.generations - min(b.generations, accounted), nil
}

// endedSince returns the flows that ended after end number `seen`, oldest first, as far
// as the kernel still remembers them.
func (t *Table) endedSince(seen, last uint64) ([]flow.Record, error) {
	now, err := t.clock()
	if err != nil {
		return nil, err
	}
	seen = max(seen, last-min(last, uint64(t.maps.Ended.MaxEntries())))
	var records []flow.Record
	for number := seen + 1; number <= last; number++ {
		var slot bpfEndedFlow
		if err := t.maps.Ended.Lookup(uint32((number-1)%uint64(t.maps.Ended.MaxEntries())), &slot); err != nil {
			return nil, fmt.Errorf("ended flow %d: %w", number, err)
		}
		if slot.Number != number { // being written, or overwritten
			continue
		}
		e := entry{key: keyOf(&slot.Key, slot.Family), flow: slot.Flow}
		r, err := t.record(now, &e)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// Ended returns the last ended flows, at most 4096, oldest first.
func (t *Table) Ended() ([]flow.Record, error) {
	last, err := t.ends()
	if err != nil {
		return nil, err
	}
	return t.endedSince(0, last)
}

// settle is the time between a flow's end and its report: its last packets are counted
// by then.
const settle = time.Second

// due is an operation that is due on a flow.
type due struct {
	*entry
	kind bpfOpKind
}

// Sweep does what is due in the flow tables: it ends idle flows, reports ended ones,
// and removes them when they have been visible long enough, or earlier if a table is
// nearly full. Undecided flows with packets of one end only are removed too if they crowd
// a table. It returns each flow that ended since the last call.
func (t *Table) Sweep() ([]flow.Record, error) {
	t.sweepMu.Lock()
	defer t.sweepMu.Unlock()
	entries, err := t.read()
	if err != nil {
		return nil, err
	}
	now, err := t.clock()
	if err != nil {
		return nil, err
	}
	ops := t.due(now, entries)
	var records []flow.Record
	// In parts, so that no report is overwritten before it is read.
	part := int(t.maps.Ended.MaxEntries()) / 2
	for from := 0; from < len(ops) || from == 0; from += part {
		if err := t.apply(ops[from:min(from+part, len(ops))]); err != nil {
			return records, err
		}
		last, err := t.ends()
		if err != nil {
			return records, err
		}
		ended, err := t.endedSince(t.endsSeen, last)
		if err != nil {
			return records, err
		}
		t.endsSeen = last
		records = append(records, ended...)
	}
	return records, nil
}

// due returns the operations that are due. A packet on another CPU may hold the entry that
// it has just found. So an entry goes in two sweeps: first it is closed to packets that
// come (promoted, or idle), and in the next sweep none can hold it any more. Only crowd
// removes entries at once, as the kernel's eviction does.
func (t *Table) due(now clock, entries []entry) []due {
	count := map[bool]int{}
	for n := range entries {
		count[entries[n].decided]++
	}
	full := map[bool]bool{
		true:  count[true] > int(t.maps.Flows.MaxEntries())*9/10,
		false: count[false] > int(t.maps.Pending.MaxEntries())*9/10,
	}
	var ops []due
	moving := map[uint32]bool{}
	keep, settled := int64(uint64(t.keep)/t.tick), int64(uint64(settle)/t.tick)
	for n := range entries {
		e := &entries[n]
		state := flowState(e.flow.State)
		if state.has(bpfFlowStateStatePromoted) && !e.decided {
			if moving[e.flow.Generation] = true; t.moving[e.flow.Generation] {
				ops = append(ops, due{e, bpfOpKindOpMerge})
			}
			continue
		}
		// How long the flow has been over, in jiffies.
		over, idle := t.idle(now, e.key, &e.flow)
		switch state.ended() {
		case "":
			if idle {
				ops = append(ops, due{e, bpfOpKindOpIdle}, due{e, bpfOpKindOpReport})
			}
			continue
		case "fin", "rst":
			over = int64(now.jiffies(&e.flow) - e.flow.LastJiffies)
		}
		if over < settled && !full[e.decided] {
			continue
		}
		if !state.has(bpfFlowStateStateReported) {
			ops = append(ops, due{e, bpfOpKindOpReport})
		}
		switch {
		case over < keep && !full[e.decided]:
		case state.has(bpfFlowStateStateIdle):
			ops = append(ops, due{e, bpfOpKindOpRemove})
		default:
			ops = append(ops, due{e, bpfOpKindOpIdle})
		}
	}
	t.moving = moving
	return append(ops, t.crowd(now, entries)...)
}

// Parts of a table of undecided flows, as divisors of its size. One that is less than half
// full is free for all. Else a source may have an eighth, and all one-way flows together
// a quarter: at a sweep a second, a flood of 48,000 flows per second then pushes no other
// flow out of a table of 65,536.
const (
	crowdFree   = 2
	crowdOneWay = 4
	crowdShare  = 8
)

// crowd returns operations that make room in crowded tables of undecided flows, before the
// kernel evicts the least recently used ones, no matter whose they are: the oldest flows
// with packets of one end only go. They leave no record, as if they were evicted.
func (t *Table) crowd(now clock, entries []entry) []due {
	const both = bpfFlowStateStateSentA | bpfFlowStateStateSentB
	size := int(t.maps.Pending.MaxEntries())
	var oneWay [2][]*entry // of IPv4 and IPv6
	var filled [2]int
	for n := range entries {
		e := &entries[n]
		if e.decided {
			continue
		}
		table := int(bit(e.key.Is6()))
		filled[table]++
		state := flowState(e.flow.State)
		_, idle := t.idle(now, e.key, &e.flow) // it ends with a record
		if !idle && state.ended() == "" && !state.has(bpfFlowStateStatePromoted) && !state.has(both) {
			oneWay[table] = append(oneWay[table], e)
		}
	}
	var ops []due
	for table, flows := range oneWay {
		if filled[table] <= size/crowdFree {
			continue
		}
		// The latest first: it is the oldest that go.
		slices.SortFunc(flows, func(a, b *entry) int { return cmp.Compare(b.flow.LastJiffies, a.flow.LastJiffies) })
		sources := map[netip.Addr]int{}
		left := 0
		for _, e := range flows {
			source := e.source()
			if sources[source] >= size/crowdShare || t.bothEnds && left >= size/crowdOneWay {
				ops = append(ops, due{e, bpfOpKindOpRemove})
				continue
			}
			sources[source]++
			left++
		}
	}
	return ops
}

// source returns the address at the far end of the wire of a flow with packets of one end
// only, as flow.Sample.Source does.
func (e *entry) source() netip.Addr {
	sample := flow.Sample{ID: flow.ID{Key: e.key}, FromA: flowState(e.flow.State).has(bpfFlowStateStateSentA)}
	if e.flow.PacketsIn == 0 {
		sample.Direction = flow.Out
	}
	return sample.Source()
}

func (t *Table) apply(ops []due) error {
	_, err := t.inbox.run(len(ops), func(n int, op *bpfOp) error {
		op.Kind = ops[n].kind
		op.Key, op.Family = wideKey(ops[n].key)
		op.Generation = ops[n].flow.Generation
		op.LastJiffies = ops[n].flow.LastJiffies
		return nil
	}, nil)
	return err
}
