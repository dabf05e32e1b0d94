// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
)

// inbox is the way of user space to the flows: operations in a memory-mapped
// array, and the program that applies them.
type inbox struct {
	mu     sync.Mutex
	ops    []bpfOp // the map's memory
	memory []byte
	batch  int // operations a run
	apply  *ebpf.Program
	own    *ebpf.Collection // of a process that did not attach
}

// haveLoop tells whether the kernel has bpf_loop (5.17).
func haveLoop() bool { return features.HaveProgramHelper(ebpf.Syscall, asm.FnLoop) == nil }

func (b *inbox) open(m *ebpf.Map, apply *ebpf.Program) error {
	size := int(m.ValueSize()) * int(m.MaxEntries())
	page := unix.Getpagesize()
	memory, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the inbox: %w", err)
	}
	b.memory = memory
	b.ops = unsafe.Slice((*bpfOp)(unsafe.Pointer(&memory[0])), int(m.MaxEntries()))
	b.apply = apply
	b.batch = len(b.ops)
	if !haveLoop() {
		b.batch = int(bpfLimitMaxBatchUnrolled)
	}
	return nil
}

func (b *inbox) close() error {
	var err error
	if b.memory != nil {
		err = unix.Munmap(b.memory)
		b.memory, b.ops = nil, nil
	}
	if b.own != nil {
		b.own.Close()
		b.own = nil
	}
	return err
}

// openInbox loads the program that applies operations where the process did
// not attach; its inbox is its own.
func (i *Interface) openInbox() error {
	if i.inbox.ops != nil {
		return nil
	}
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("BPF objects: %w", err)
	}
	for name := range spec.Programs {
		if name != bpfProgDpclassApply {
			delete(spec.Programs, name)
		}
	}
	if err := spec.Variables["has_bpf_loop"].Set(haveLoop()); err != nil {
		return fmt.Errorf("setting: %w", err)
	}
	replace := map[string]*ebpf.Map{}
	for name, m := range mapPins(&i.maps) {
		if pinned := spec.Maps[name]; pinned != nil {
			pinned.MaxEntries = (*m).MaxEntries()
			replace[name] = *m
		}
	}
	own, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return fmt.Errorf("load the program that stores verdicts: %w", err)
	}
	i.inbox.own = own
	return i.inbox.open(own.Maps["inbox"], own.Programs[bpfProgDpclassApply])
}

// run applies n operations, filled in by fill, in as few runs as possible. stale
// counts those whose flow was gone or of another generation.
func (i *Interface) run(n int, fill func(n int, op *bpfOp) error) (stale int, err error) {
	b := &i.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := i.openInbox(); err != nil {
		return 0, err
	}
	for from := 0; from < n; from += b.batch {
		batch := bpfBatch{Count: uint32(min(b.batch, n-from))}
		for k := range int(batch.Count) {
			b.ops[k] = bpfOp{}
			if err := fill(from+k, &b.ops[k]); err != nil {
				return stale, err
			}
		}
		out := batch
		if _, err := b.apply.Run(&ebpf.RunOptions{Context: batch, ContextOut: &out}); err != nil {
			return stale, fmt.Errorf("apply %d operations: %w", batch.Count, err)
		}
		stale += int(out.Stale)
	}
	return stale, nil
}

// fillVerdicts fills in the verdicts of an operation.
func (i *Interface) fillVerdicts(op *bpfOp, v *flow.Verdicts) (err error) {
	op.Kind = bpfOpKindOpVerdict
	if op.Category, err = i.names.encodeVerdict(&v[flow.Category]); err != nil {
		return err
	}
	op.App, err = i.names.encodeVerdict(&v[flow.App])
	return err
}

// Apply stores verdicts in the kernel. stale counts those whose flow is gone or
// of another generation; they change nothing.
func (i *Interface) Apply(decisions []flow.Decision) (stale int, err error) {
	return i.run(len(decisions), func(n int, op *bpfOp) error {
		d := &decisions[n]
		op.Key, op.Family = wideKey(d.ID.Key)
		op.Generation = d.ID.Generation
		op.Settled = bit(d.Settled)
		return i.fillVerdicts(op, &d.Verdicts)
	})
}

// SetVerdict stores an operator's verdicts, whatever their Source says: they are
// final, and no model's verdict changes them. A task without a label keeps its
// verdict. The error wraps ErrNoFlow where there is no such flow.
func (i *Interface) SetVerdict(key flow.Key, v flow.Verdicts) error {
	for t := range v {
		v[t].Source, v[t].Model, v[t].Final = flow.SourceOperator, "", true
	}
	stale, err := i.run(1, func(_ int, op *bpfOp) error {
		op.Key, op.Family = wideKey(key)
		return i.fillVerdicts(op, &v)
	})
	if err != nil {
		return err
	}
	if stale > 0 {
		return fmt.Errorf("flow %q on %q: %w", key, i.name, ErrNoFlow)
	}
	return nil
}

// Resample takes back one sample of each flow that is named: the next payload
// packet is sampled in its place.
func (i *Interface) Resample(ids []flow.ID) error {
	_, err := i.run(len(ids), func(n int, op *bpfOp) error {
		op.Kind = bpfOpKindOpResample
		op.Key, op.Family = wideKey(ids[n].Key)
		op.Generation = ids[n].Generation
		op.Samples = 1
		return nil
	})
	return err
}

// ResampleAll has every flow sampled again from the start whose verdicts are not
// settled.
func (i *Interface) ResampleAll() error {
	entries, err := i.read()
	if err != nil {
		return err
	}
	const over = bpfFlowStateStateSettled | bpfFlowStateStatePromoted
	entries = slices.DeleteFunc(entries, func(e entry) bool { return e.flow.State&over != 0 })
	_, err = i.run(len(entries), func(n int, op *bpfOp) error {
		op.Kind = bpfOpKindOpResample
		op.Key, op.Family = wideKey(entries[n].key)
		op.Generation = entries[n].flow.Generation
		op.Samples = math.MaxUint8
		return nil
	})
	return err
}
