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

// readTable reads a whole table. Flows that come or go meanwhile may be missed.
func readTable[K any](m *ebpf.Map, keyOf func(*K) flow.Key, decided bool, entries []entry) ([]entry, error) {
	var cursor ebpf.MapBatchCursor
	keys := make([]K, readBatch)
	values := make([]bpfFlow, readBatch)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for k := range n {
			entries = append(entries, entry{keyOf(&keys[k]), values[k], decided})
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read map %v: %w", m, err)
		}
	}
}

// read reads all tables, the decided flows first.
func (t *Table) read() ([]entry, error) {
	entries, err := readTable(t.maps.Flows, keyOf4, true, nil)
	if err == nil {
		entries, err = readTable(t.maps.Flows6, keyOf6, true, entries)
	}
	if err == nil {
		entries, err = readTable(t.maps.Pending, keyOf4, false, entries)
	}
	if err == nil {
		entries, err = readTable(t.maps.Pending6, keyOf6, false, entries)
	}
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
func (t *Table) record(now clock, e *entry) (flow.Record, error) {
	f, state := &e.flow, flowState(e.flow.State)
	src, dst := e.key.A, e.key.B
	if state.has(bpfFlowStateStateFirstB) {
		src, dst = dst, src
	}
	r := flow.Record{
		Iface: t.iface, Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port(),
		Proto: e.key.Proto.String(), VLAN: e.key.VLAN,
		Packets: f.PacketsIn + f.PacketsOut, Bytes: f.BytesIn + f.BytesOut,
		Samples:   int(f.Samples),
		FirstSeen: now.time(int64(f.FirstNs)), LastSeen: now.time(now.lastSeen(f)),
		Live: &flow.Live{
			PacketsIn: f.PacketsIn, BytesIn: f.BytesIn, PacketsOut: f.PacketsOut, BytesOut: f.BytesOut,
			Dropped: f.Dropped, Generation: f.Generation, Rule: int(f.Choice.RuleIn), RuleOut: int(f.Choice.RuleOut), Ended: state.ended(),
			Midstream: state.has(bpfFlowStateStateMidstream), Held: held(f),
		},
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
	return r, err
}
