// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// entry is one entry of a flow table.
type entry struct {
	key     flow.Key
	flow    bpfFlow
	decided bool // from the tables flows and flows6
}

const readBatch = 4096

// batch is room for one batch of a table.
type batch[K any] struct {
	keys   []K
	values []bpfFlow
}

// eachOf hands the entries of a table to each, until it returns an error. Flows that come or
// go meanwhile may be missed. The entry is valid until the next one.
func eachOf[K any](m *ebpf.Map, keyOf func(*K) flow.Key, decided bool, room *batch[K], each func(*entry) error) error {
	if room.keys == nil {
		room.keys, room.values = make([]K, readBatch), make([]bpfFlow, readBatch)
	}
	var cursor ebpf.MapBatchCursor
	var e entry
	for {
		n, err := m.BatchLookup(&cursor, room.keys, room.values, nil)
		for k := range n {
			e.key, e.flow, e.decided = keyOf(&room.keys[k]), room.values[k], decided
			if err := each(&e); err != nil {
				return err
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read map %v: %w", m, err)
		}
	}
}

// each hands the entries of all tables to each, the decided flows first, until it returns
// an error. The entry is valid until the next one.
func (t *Table) each(each func(*entry) error) error {
	var four batch[bpfFlowKey]
	var six batch[bpfFlowKey6]
	err := eachOf(t.maps.Flows, keyOf4, true, &four, each)
	if err == nil {
		err = eachOf(t.maps.Flows6, keyOf6, true, &six, each)
	}
	if err == nil {
		err = eachOf(t.maps.Pending, keyOf4, false, &four, each)
	}
	if err == nil {
		err = eachOf(t.maps.Pending6, keyOf6, false, &six, each)
	}
	return err
}

// read reads all tables, the decided flows first.
func (t *Table) read() (entries []entry, err error) {
	err = t.each(func(e *entry) error {
		entries = append(entries, *e)
		return nil
	})
	return entries, err
}

// held reports whether rules act on the flow by an earlier one's verdict (is_held in
// bpf/flow.h).
func held(f *bpfFlow) bool {
	firm := func(v *bpfVerdict) bool { return v.Final != 0 || flow.Source(v.Source) == flow.SourceOperator }
	state := flowState(f.State)
	return state.has(bpfFlowStateStateHeld) && !state.has(bpfFlowStateStateSettled) && !firm(&f.Category) && !firm(&f.App)
}

// flowState is the state of a flow, as bits.
type flowState bpfFlowState

func (f flowState) has(bits bpfFlowState) bool { return bpfFlowState(f)&bits == bits }

// ended returns how the flow ended, "" while it lives.
func (f flowState) ended() string {
	switch {
	case f.has(bpfFlowStateStateRst):
		return "rst"
	case f.has(bpfFlowStateStateFinA | bpfFlowStateStateFinB):
		return "fin"
	case f.has(bpfFlowStateStateIdle):
		return "idle"
	}
	return ""
}

func addCounts(to, from *bpfFlow) {
	to.PacketsIn += from.PacketsIn
	to.BytesIn += from.BytesIn
	to.PacketsOut += from.PacketsOut
	to.BytesOut += from.BytesOut
	to.Dropped += from.Dropped
	to.DroppedBytes += from.DroppedBytes
}

// merge joins the two entries of a flow that is moving from pending to decided.
func merge(entries []entry) []entry {
	type id struct {
		key        flow.Key
		generation uint32
	}
	at := make(map[id]int, len(entries))
	merged := entries[:0]
	for n := range entries {
		e := entries[n]
		if first, twice := at[id{e.key, e.flow.Generation}]; twice {
			addCounts(&merged[first].flow, &e.flow)
			continue
		}
		at[id{e.key, e.flow.Generation}] = len(merged)
		merged = append(merged, e)
	}
	return merged
}

// timeout returns the idle time-out of a flow in jiffies (idle_timeout in bpf/flow.h).
func (t *Table) timeout(proto flow.Proto, state flowState) uint64 {
	both := state.has(bpfFlowStateStateSentA | bpfFlowStateStateSentB)
	index := 0
	if proto != flow.TCP {
		index = 2
	}
	if both {
		index++
	}
	return t.timeouts[index]
}

// idle reports whether the flow has exceeded its time-out, and by how many jiffies.
func (t *Table) idle(now clock, key flow.Key, f *bpfFlow) (over int64, idle bool) {
	over = int64(now.jiffies(f) - f.LastJiffies - t.timeout(key.Proto, flowState(f.State)))
	return over, over > 0
}

// record returns an entry as a record.
func (t *Table) record(now clock, e *entry) (r flow.Record, err error) {
	err = t.fill(now, e, &r, &flow.Live{})
	return r, err
}

// fill writes an entry into a record and its live part.
func (t *Table) fill(now clock, e *entry, r *flow.Record, live *flow.Live) error {
	f, state := &e.flow, flowState(e.flow.State)
	src, dst := e.key.A, e.key.B
	if state.has(bpfFlowStateStateFirstB) {
		src, dst = dst, src
	}
	*live = flow.Live{
		PacketsIn: f.PacketsIn, BytesIn: f.BytesIn, PacketsOut: f.PacketsOut, BytesOut: f.BytesOut,
		Dropped: f.Dropped, DroppedBytes: f.DroppedBytes, Generation: f.Generation, Rule: int(f.Choice.RuleIn), RuleOut: int(f.Choice.RuleOut), Ended: state.ended(),
		Midstream: state.has(bpfFlowStateStateMidstream), Held: held(f),
	}
	live.DryRun = now.dryRun && (live.Rule > 0 || live.RuleOut > 0)
	*r = flow.Record{
		Iface: t.iface, Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port(),
		Proto: e.key.Proto.String(), VLAN: e.key.VLAN,
		Packets: f.PacketsIn + f.PacketsOut, Bytes: f.BytesIn + f.BytesOut,
		Samples:   int(f.Samples),
		FirstSeen: now.time(int64(f.FirstNs)), LastSeen: now.time(now.lastSeen(f)),
		Live: live,
	}
	if r.Ended == "" {
		if _, idle := t.idle(now, e.key, f); idle {
			r.Ended = "idle"
		}
	}
	verdicts := flow.Verdicts{
		flow.Category: t.labels.decodeVerdict(&f.Category), flow.App: t.labels.decodeVerdict(&f.App),
	}
	r.SetVerdicts(&verdicts)
	if r.Model = verdicts[flow.Category].Model; r.Model == "" {
		r.Model = verdicts[flow.App].Model
	}
	evidence, err := t.evidence.lookup(f.Evidence)
	evidence.Protocol = flow.Protocol(f.Protocol)
	r.SetEvidence(&evidence)
	return err
}
