// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// Table is the flows of one interface. Its methods may be called from several
// goroutines. It ignores ID.Iface.
type Table struct {
	iface    string
	maps     *bpfMaps
	labels   *nameTable
	tick     uint64        // ns of a jiffy
	timeouts [4]uint64     // jiffies: TCP opening, established, UDP single, stream
	keep     time.Duration // how long an ended flow stays visible
	bothEnds bool          // packets of both ends of a flow are seen
	inbox    inbox
	evidence *evidenceTable

	sweepMu  sync.Mutex
	endsSeen uint64
	moving   map[uint32]bool // generations of entries that the last sweep saw promoted
}

// fillVerdicts fills in the verdicts of an operation.
func (t *Table) fillVerdicts(op *bpfOp, v *flow.Verdicts) (err error) {
	op.Kind = bpfOpKindOpVerdict
	if op.Category, err = t.labels.encodeVerdict(&v[flow.Category]); err != nil {
		return err
	}
	op.App, err = t.labels.encodeVerdict(&v[flow.App])
	return err
}

// Apply stores verdicts and evidence in the kernel. A task whose verdict has no source keeps
// the one it has; a flow keeps evidence that a decision does not have. stale counts the decisions
// whose flow is gone or of another generation; they have no effect.
func (t *Table) Apply(decisions []flow.Decision) (stale int, err error) {
	ids := make([]uint64, len(decisions))
	for n := range decisions {
		ids[n] = t.evidence.id(&decisions[n].Evidence)
	}
	if err := t.evidence.store(ids, func(n int) *flow.Evidence { return &decisions[n].Evidence }, false); err != nil {
		return 0, err
	}
	var evicted []int
	stale, err = t.inbox.run(len(decisions), func(n int, op *bpfOp) error {
		d := &decisions[n]
		op.Key, op.Family = wideKey(d.ID.Key)
		op.Generation = d.ID.Generation
		op.Settled = bit(d.Settled)
		op.Protocol, op.Evidence = bpfProtocol(d.Evidence.Protocol), ids[n]
		return t.fillVerdicts(op, &d.Verdicts)
	}, func(n int) { evicted = append(evicted, n) })
	if err != nil || len(evicted) == 0 {
		return stale, err
	}
	again := make([]uint64, len(evicted))
	for k, n := range evicted {
		again[k] = ids[n]
	}
	return stale, t.evidence.store(again, func(k int) *flow.Evidence { return &decisions[evicted[k]].Evidence }, true)
}

// SetVerdicts stores an operator's verdicts, whatever their Source says: they are
// final, and no model's verdict changes them. A task without a label keeps its
// verdict. The error wraps ErrNoFlow if there is no such flow.
func (t *Table) SetVerdicts(key flow.Key, v flow.Verdicts) error {
	for task := range v {
		if v[task].Label == "" {
			v[task] = flow.Verdict{}
			continue
		}
		v[task].Source, v[task].Model, v[task].Final = flow.SourceOperator, "", true
	}
	stale, err := t.inbox.run(1, func(_ int, op *bpfOp) error {
		op.Key, op.Family = wideKey(key)
		return t.fillVerdicts(op, &v)
	}, nil)
	if err != nil {
		return err
	}
	if stale > 0 {
		return fmt.Errorf("flow %q on %q: %w", key, t.iface, ErrNoFlow)
	}
	return nil
}

// Resample takes back one sample of each of the flows: the kernel samples the next
// payload packet instead.
func (t *Table) Resample(ids []flow.ID) error {
	_, err := t.inbox.run(len(ids), func(n int, op *bpfOp) error {
		op.Kind = bpfOpKindOpResample
		op.Key, op.Family = wideKey(ids[n].Key)
		op.Generation = ids[n].Generation
		op.Samples = 1
		return nil
	}, nil)
	return err
}

// ResampleAll makes the kernel sample every flow again from the start, except those
// whose verdicts are settled.
func (t *Table) ResampleAll() error {
	entries, err := t.read()
	if err != nil {
		return err
	}
	const over = bpfFlowStateStateSettled | bpfFlowStateStatePromoted
	entries = slices.DeleteFunc(entries, func(e entry) bool { return e.flow.State&over != 0 })
	_, err = t.inbox.run(len(entries), func(n int, op *bpfOp) error {
		op.Kind = bpfOpKindOpResample
		op.Key, op.Family = wideKey(entries[n].key)
		op.Generation = entries[n].flow.Generation
		op.Samples = math.MaxUint8
		return nil
	}, nil)
	return err
}

// Withdraw takes back the verdicts of models on a task that are not final. It is for models
// that have been replaced by ones that have no verdict on the task.
func (t *Table) Withdraw(task flow.Task) error {
	entries, err := t.read()
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool {
		v := &e.flow.Category
		if task == flow.App {
			v = &e.flow.App
		}
		return v.Source != bpfSourceSourceModel || v.Final != 0 || v.Label == bpfLabelUndecided
	})
	var none flow.Verdicts
	none[task].Source = flow.SourceModel
	_, err = t.inbox.run(len(entries), func(n int, op *bpfOp) error {
		op.Key, op.Family = wideKey(entries[n].key)
		op.Generation = entries[n].flow.Generation
		return t.fillVerdicts(op, &none)
	}, nil)
	return err
}

// Flows returns the flows of the interface in the order of their first packets. Ended
// flows are included as long as they are in the table.
func (t *Table) Flows() ([]flow.Record, error) {
	entries, err := t.read()
	if err != nil {
		return nil, err
	}
	now, err := t.clock()
	if err != nil {
		return nil, err
	}
	entries = merge(entries)
	records := make([]flow.Record, len(entries))
	for n := range entries {
		if records[n], err = t.record(now, &entries[n]); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(records, func(a, b int) bool { return records[a].FirstSeen.Before(records[b].FirstSeen) })
	return records, nil
}

// Each hands the flows of the interface to each, in no order, until it returns false. Unlike
// [Table.Flows] it needs no memory for them. A flow that is just being decided may come
// twice, with a part of its counts each time. The record is valid until the next one.
func (t *Table) Each(each func(*flow.Record) bool) error {
	now, err := t.clock()
	if err != nil {
		return err
	}
	stop := errors.New("enough")
	var record flow.Record
	var live flow.Live
	err = t.each(func(e *entry) error {
		if err := t.fill(now, e, &record, &live); err != nil {
			return err
		}
		if !each(&record) {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		return nil
	}
	return err
}

// Lookup returns one flow. The error wraps ErrNoFlow if there is none.
func (t *Table) Lookup(key flow.Key) (flow.Record, error) {
	decided, open := t.maps.Flows, t.maps.Pending
	var mapKey any
	if key.Is6() {
		decided, open = t.maps.Flows6, t.maps.Pending6
		mapKey, _ = wideKey(key)
	} else {
		mapKey = narrowKey(key)
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
		return flow.Record{}, fmt.Errorf("flow %q on %q: %w", key, t.iface, ErrNoFlow)
	}
	now, err := t.clock()
	if err != nil {
		return flow.Record{}, err
	}
	return t.record(now, &merge(entries)[0])
}
