// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// inbox is how user space changes flows: operations in a memory-mapped array, and the
// program that applies them.
type inbox struct {
	maps   *bpfMaps
	info   *bpfInterfaceInfo
	mu     sync.Mutex
	ops    []bpfOp // the array's memory; nil until it is open
	memory []byte
	batch  int // operations in a run
	apply  *ebpf.Program
	own    *ebpf.Collection // loaded here if the process did not attach; else nil
	closed bool
}

// use opens the inbox of a collection. No other goroutine has the inbox yet, or the caller
// holds mu.
func (b *inbox) use(collection *ebpf.Collection) error {
	m := collection.Maps["inbox"]
	size := int(m.ValueSize()) * int(m.MaxEntries())
	page := unix.Getpagesize()
	memory, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the inbox: %w", err)
	}
	b.memory = memory
	b.ops = unsafe.Slice((*bpfOp)(unsafe.Pointer(&memory[0])), int(m.MaxEntries()))
	b.apply = collection.Programs[bpfProgDpclassApply]
	b.batch = len(b.ops)
	if !haveLoop() {
		b.batch = int(bpfLimitMaxBatchUnrolled)
	}
	return nil
}

// open loads the program if the process did not attach. It then has its own inbox.
func (b *inbox) open() error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("BPF objects: %w", err)
	}
	for name := range spec.Programs {
		if name != bpfProgDpclassApply {
			delete(spec.Programs, name)
		}
	}
	pinned := map[string]*ebpf.Map{}
	for name, m := range pinnedMaps(b.maps) {
		spec.Maps[name].MaxEntries = (*m).MaxEntries()
		pinned[name] = *m
	}
	if err := set(spec, map[string]any{"has_bpf_loop": haveLoop(), "both_ends": bothEnds(b.info)}); err != nil {
		return err
	}
	if err := setLines(spec, b.info); err != nil {
		return err
	}
	own, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		return fmt.Errorf("load the program that stores verdicts: %w", err)
	}
	if err := b.use(own); err != nil {
		own.Close()
		return err
	}
	b.own = own
	return nil
}

func (b *inbox) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
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

// busyWait is how long a run waits for those of other processes. Each takes milliseconds at
// most.
const (
	busyWait = 10 * time.Second
	busyPoll = 100 * time.Microsecond
)

// runOnce applies the operations that are in the inbox.
func (b *inbox) runOnce(batch bpfBatch) (out bpfBatch, err error) {
	for deadline := time.Now().Add(busyWait); ; time.Sleep(busyPoll) {
		if _, err := b.apply.Run(&ebpf.RunOptions{Context: batch, ContextOut: &out}); err != nil {
			return out, err
		}
		if out.Busy == 0 {
			return out, nil
		}
		if time.Now().After(deadline) {
			return out, fmt.Errorf("another process has been changing flows for %v", busyWait)
		}
	}
}

// run applies n operations, filled in by fill, in as few runs as possible. stale counts
// the operations whose flow was gone or of another generation; lacks, if it is not nil, is
// called with those whose evidence is not in the map. After close, the error wraps
// os.ErrClosed.
func (b *inbox) run(n int, fill func(n int, op *bpfOp) error, lacks func(n int)) (stale int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, fmt.Errorf("store verdicts: the interface is %w", os.ErrClosed)
	}
	if b.ops == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	for from := 0; from < n; from += b.batch {
		batch := bpfBatch{Count: uint32(min(b.batch, n-from))}
		for k := range int(batch.Count) {
			b.ops[k] = bpfOp{}
			if err := fill(from+k, &b.ops[k]); err != nil {
				return stale, err
			}
		}
		out, err := b.runOnce(batch)
		if err != nil {
			return stale, fmt.Errorf("apply %d operations: %w", batch.Count, err)
		}
		stale += int(out.Stale)
		for k := range int(batch.Count) {
			if out.Missing > 0 && lacks != nil && b.ops[k].Missing != 0 {
				lacks(from + k)
			}
		}
	}
	return stale, nil
}
