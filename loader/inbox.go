// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/bpf"
	"github.com/dpclass/dpclass/flow"
)

// inbox is the way of user space to the flows: operations in a memory-mapped
// array, and the program that applies them.
type inbox struct {
	mu     sync.Mutex
	ops    []bpf.DpclassOp // the map's memory
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
	b.ops = unsafe.Slice((*bpf.DpclassOp)(unsafe.Pointer(&memory[0])), int(m.MaxEntries()))
	b.apply = apply
	b.batch = len(b.ops)
	if !haveLoop() {
		b.batch = int(bpf.DpclassLimitMaxBatchUnrolled)
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
	spec, err := bpf.LoadDpclass()
	if err != nil {
		return fmt.Errorf("BPF objects: %w", err)
	}
	for name := range spec.Programs {
		if name != bpf.DpclassProgDpclassApply {
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
	return i.inbox.open(own.Maps["inbox"], own.Programs[bpf.DpclassProgDpclassApply])
}

// run applies n operations, filled in by fill, in as few runs as possible. done
// is called with each after it was applied; it may be nil.
func (i *Interface) run(n int, fill func(n int, op *bpf.DpclassOp) error, done func(n int, applied bool)) (stale int, err error) {
	b := &i.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := i.openInbox(); err != nil {
		return 0, err
	}
	for from := 0; from < n; from += b.batch {
		batch := bpf.DpclassBatch{Count: uint32(min(b.batch, n-from))}
		for k := range int(batch.Count) {
			b.ops[k] = bpf.DpclassOp{}
			if err := fill(from+k, &b.ops[k]); err != nil {
				return stale, err
			}
		}
		out := batch
		if _, err := b.apply.Run(&ebpf.RunOptions{Context: batch, ContextOut: &out}); err != nil {
			return stale, fmt.Errorf("apply %d operations: %w", batch.Count, err)
		}
		stale += int(out.Stale)
		if done != nil {
			for k := range int(batch.Count) {
				done(from+k, b.ops[k].Applied == 1)
			}
		}
	}
	return stale, nil
}

func confidence(p float64) uint16 {
	if math.IsNaN(p) {
		return 0
	}
	return uint16(math.Round(min(max(p, 0), 1) * math.MaxUint16))
}

func (i *Interface) fillVerdicts(op *bpf.DpclassOp, v *flow.Verdicts) error {
	var err error
	op.Kind = bpf.DpclassOpKindOpVerdict
	if c := &v[flow.Category]; c.Label != "" {
		if op.Category, err = i.names.label(c.Label); err != nil {
			return err
		}
		op.CategorySource = bpf.DpclassSource(c.Source)
		op.CategoryConfidence = confidence(c.Confidence)
		op.CategoryModel = i.names.model(c.Model)
	}
	if a := &v[flow.App]; a.Label != "" {
		if op.App, err = i.names.label(a.Label); err != nil {
			return err
		}
		op.AppSource = bpf.DpclassSource(a.Source)
		op.AppConfidence = confidence(a.Confidence)
		op.AppModel = i.names.model(a.Model)
	}
	op.Final = bit(v.Final())
	return nil
}

// Apply stores verdicts in the kernel. stale counts those whose flow is gone or
// of another generation; they change nothing.
func (i *Interface) Apply(decisions []flow.Decision) (stale int, err error) {
	return i.run(len(decisions), func(n int, op *bpf.DpclassOp) error {
		d := &decisions[n]
		op.Key, op.Family = wideKey(d.ID.Key)
		op.Generation = d.ID.Generation
		return i.fillVerdicts(op, &d.Verdicts)
	}, nil)
}

// SetVerdict stores an operator's verdict: final, and no model's verdict
// changes it. The error wraps ErrNoFlow where there is no such flow.
func (i *Interface) SetVerdict(key flow.Key, v flow.Verdicts) error {
	stale, err := i.run(1, func(_ int, op *bpf.DpclassOp) error {
		op.Key, op.Family = wideKey(key)
		return i.fillVerdicts(op, &v)
	}, nil)
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
	_, err := i.run(len(ids), func(n int, op *bpf.DpclassOp) error {
		op.Kind = bpf.DpclassOpKindOpResample
		op.Key, op.Family = wideKey(ids[n].Key)
		op.Generation = ids[n].Generation
		op.Samples = 1
		return nil
	}, nil)
	return err
}

// ResampleAll has every flow without a final verdict sampled anew.
func (i *Interface) ResampleAll() error {
	entries, err := i.read(pendingTables)
	if err != nil {
		return err
	}
	_, err = i.run(len(entries), func(n int, op *bpf.DpclassOp) error {
		op.Kind = bpf.DpclassOpKindOpResample
		op.Key, op.Family = wideKey(entries[n].key)
		op.Generation = entries[n].flow.Generation
		op.Samples = math.MaxUint8
		return nil
	}, nil)
	return err
}
