// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// entry is one entry of a flow table.
type entry struct {
	key     flow.Key
	flow    bpfFlow
	decided bool // of the tables flows and flows6
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
func (i *Interface) read() ([]entry, error) {
	entries, err := readTable(i.maps.Flows, keyOf4, true, nil)
	if err == nil {
		entries, err = readTable(i.maps.Flows6, keyOf6, true, entries)
	}
	if err == nil {
		entries, err = readTable(i.maps.Pending, keyOf4, false, entries)
	}
	if err == nil {
		entries, err = readTable(i.maps.Pending6, keyOf6, false, entries)
	}
	return entries, err
}

func (f flowState) has(bits bpfFlowState) bool {
	return bpfFlowState(f)&bits == bits
}

type flowState bpfFlowState

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

// timeout returns the idle time-out of a flow in jiffies (idle_timeout in bpf/flow.h).
func (i *Interface) timeout(proto flow.Proto, state flowState) uint64 {
	both := state.has(bpfFlowStateStateSentA | bpfFlowStateStateSentB)
	index := 0
	if proto == flow.UDP {
		index = 2
	}
	if both {
		index++
	}
	return i.info.Timeouts[index]
}

// idle tells for how many jiffies the flow has been over its time-out.
func (i *Interface) idle(now clock, key flow.Key, f *bpfFlow) (over uint64, idle bool) {
	silent, limit := now.jiffies(f)-f.LastJiffies, i.timeout(key.Proto, flowState(f.State))
	if int64(silent) <= int64(limit) {
		return 0, false
	}
	return silent - limit, true
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

func (i *Interface) record(now clock, e *entry) flow.Record {
	f, state := &e.flow, flowState(e.flow.State)
	src, dst := e.key.A, e.key.B
	if state.has(bpfFlowStateStateFirstB) {
		src, dst = dst, src
	}
	r := flow.Record{
		Iface: i.name, Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port(),
		Proto: e.key.Proto.String(), VLAN: e.key.VLAN,
		Packets: f.PacketsIn + f.PacketsOut, Bytes: f.BytesIn + f.BytesOut,
		Samples:   int(f.Samples),
		FirstSeen: now.time(int64(f.FirstNs)), LastSeen: now.time(now.lastSeen(f)),
		Live: &flow.Live{
			PacketsIn: f.PacketsIn, BytesIn: f.BytesIn, PacketsOut: f.PacketsOut, BytesOut: f.BytesOut,
			Dropped: f.Dropped, Generation: f.Generation, Rule: int(f.Rule), Ended: state.ended(),
			Midstream: state.has(bpfFlowStateStateMidstream),
		},
	}
	if r.Ended == "" {
		if _, idle := i.idle(now, e.key, f); idle {
			r.Ended = "idle"
		}
	}
	verdicts := flow.Verdicts{
		flow.Category: i.names.decodeVerdict(&f.Category), flow.App: i.names.decodeVerdict(&f.App),
	}
	r.SetVerdicts(&verdicts)
	if r.Model = verdicts[flow.Category].Model; r.Model == "" {
		r.Model = verdicts[flow.App].Model
	}
	return r
}

// Flows returns the flows of the interface, ended ones too as long as they are
// in the table, by first packet.
func (i *Interface) Flows() ([]flow.Record, error) {
	entries, err := i.read()
	if err != nil {
		return nil, err
	}
	now, err := newClock(i.info.TickNs)
	if err != nil {
		return nil, err
	}
	entries = merge(entries)
	records := make([]flow.Record, len(entries))
	for n := range entries {
		records[n] = i.record(now, &entries[n])
	}
	sort.SliceStable(records, func(a, b int) bool { return records[a].FirstSeen.Before(records[b].FirstSeen) })
	return records, nil
}

// Lookup returns one flow. The error wraps ErrNoFlow where there is none.
func (i *Interface) Lookup(key flow.Key) (flow.Record, error) {
	decided, open := i.maps.Flows, i.maps.Pending
	var mapKey any = narrowKeyOrNil(key)
	if key.Is6() {
		decided, open = i.maps.Flows6, i.maps.Pending6
		mapKey, _ = wideKey(key)
	}
	var entries []entry
	for _, m := range []*ebpf.Map{decided, open} {
		e := entry{key: key, decided: m == decided}
		err := m.Lookup(mapKey, &e.flow)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return flow.Record{}, fmt.Errorf("flow %q: %w", key, err)
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return flow.Record{}, fmt.Errorf("flow %q on %q: %w", key, i.name, ErrNoFlow)
	}
	now, err := newClock(i.info.TickNs)
	if err != nil {
		return flow.Record{}, err
	}
	return i.record(now, &merge(entries)[0]), nil
}

func narrowKeyOrNil(key flow.Key) any {
	if key.Is6() {
		return nil
	}
	return narrowKey(key)
}

// ends returns how many flows have ended so far.
func (i *Interface) ends() (uint64, error) {
	var n uint64
	if err := i.maps.Sequence.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("number of ended flows: %w", err)
	}
	return n, nil
}

// endedSince returns the flows that ended after the end of the number `seen`, as
// far as they are remembered, oldest first.
func (i *Interface) endedSince(seen, last uint64) ([]flow.Record, error) {
	now, err := newClock(i.info.TickNs)
	if err != nil {
		return nil, err
	}
	seen = max(seen, last-min(last, uint64(i.maps.Ended.MaxEntries())))
	var records []flow.Record
	for number := seen + 1; number <= last; number++ {
		var slot bpfEndedFlow
		if err := i.maps.Ended.Lookup(uint32((number-1)%uint64(i.maps.Ended.MaxEntries())), &slot); err != nil {
			return nil, fmt.Errorf("ended flow %d: %w", number, err)
		}
		if slot.Number != number { // being written, or written over
			continue
		}
		e := entry{key: keyOf(&slot.Key, slot.Family), flow: slot.Flow}
		records = append(records, i.record(now, &e))
	}
	return records, nil
}

// Ended returns the last ended flows, at most 4096, oldest first.
func (i *Interface) Ended() ([]flow.Record, error) {
	last, err := i.ends()
	if err != nil {
		return nil, err
	}
	return i.endedSince(0, last)
}

// settle is how long after its end a flow is reported: its last packets are
// counted by then.
const settle = time.Second

// Sweep does what is due in the flow tables: it ends idle flows, reports ended
// ones, takes them out when they have been visible long enough, ended flows
// first where a table is nearly full. It returns each flow that ended since the
// last call.
func (i *Interface) Sweep() ([]flow.Record, error) {
	i.sweepMu.Lock()
	defer i.sweepMu.Unlock()
	entries, err := i.read()
	if err != nil {
		return nil, err
	}
	now, err := newClock(i.info.TickNs)
	if err != nil {
		return nil, err
	}
	count := map[bool]int{}
	for n := range entries {
		count[entries[n].decided]++
	}
	full := map[bool]bool{
		true:  count[true] > int(i.maps.Flows.MaxEntries())*9/10,
		false: count[false] > int(i.maps.Pending.MaxEntries())*9/10,
	}

	type due struct {
		*entry
		kind bpfOpKind
	}
	var ops []due
	keep, settled := uint64(i.keep)/i.info.TickNs, uint64(settle)/i.info.TickNs
	for n := range entries {
		e := &entries[n]
		state := flowState(e.flow.State)
		if state.has(bpfFlowStateStatePromoted) && !e.decided {
			ops = append(ops, due{e, bpfOpKindOpMerge})
			continue
		}
		silent := now.jiffies(&e.flow) - e.flow.LastJiffies
		over, idle := i.idle(now, e.key, &e.flow)
		switch {
		case state.ended() == "idle":
			silent = over
		case state.ended() == "" && idle:
			ops = append(ops, due{e, bpfOpKindOpIdle}, due{e, bpfOpKindOpReport})
			continue
		case state.ended() == "":
			continue
		}
		if int64(silent) < int64(settled) && !full[e.decided] {
			continue
		}
		if !state.has(bpfFlowStateStateReported) {
			ops = append(ops, due{e, bpfOpKindOpReport})
		}
		if int64(silent) >= int64(keep) || full[e.decided] {
			ops = append(ops, due{e, bpfOpKindOpRemove})
		}
	}

	var records []flow.Record
	// In parts, so that no report is written over before it is read.
	part := int(i.maps.Ended.MaxEntries()) / 2
	for from := 0; from < len(ops) || from == 0; from += part {
		some := ops[from:min(from+part, len(ops))]
		_, err := i.run(len(some), func(n int, op *bpfOp) error {
			op.Kind = some[n].kind
			op.Key, op.Family = wideKey(some[n].key)
			op.Generation = some[n].flow.Generation
			op.LastJiffies = some[n].flow.LastJiffies
			return nil
		})
		if err != nil {
			return records, err
		}
		last, err := i.ends()
		if err != nil {
			return records, err
		}
		ended, err := i.endedSince(i.endsSeen, last)
		if err != nil {
			return records, err
		}
		i.endsSeen = last
		records = append(records, ended...)
	}
	return records, nil
}
