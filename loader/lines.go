// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
)

// The lines of decided flows: see bpf/line.h.

// placeBits is BUCKET_PLACE_BITS, and maxFlows what they can name.
const (
	placeBits = 24
	maxFlows  = 1 << placeBits
)

// Bits of a line's control word (enum line_bit), and how its counts are stored.
const (
	lineUsed         = 1
	lineLive         = 2
	linePacketsShift = 40
	lineBytes        = 1<<linePacketsShift - 1
)

// A table of n decided flows has places for 15/16 of them, and two entries in buckets for
// each: with struct flow, that is 400 bytes a flow of IPv4. The others go the general way.
func placesFor(flows uint32) (places, buckets uint32) {
	const entries, each = 4, 2
	return max(flows-flows/16, 1), uint32(1) << bits.Len32(max(flows*each/entries, 1)-1)
}

// sizeLines sets the sizes of the tables of lines.
func sizeLines(spec *ebpf.CollectionSpec, cfg *Config) {
	places, buckets := placesFor(cfg.MaxFlows)
	if cfg.NoFastPath {
		places, buckets = 0, 1
	}
	for _, name := range []string{"lines_in", "lines_out", "lines6_in", "lines6_out"} {
		spec.Maps[name].MaxEntries = places + 1 // place 0 is not used
	}
	spec.Maps["places"].MaxEntries, spec.Maps["places6"].MaxEntries = buckets, buckets
}

// setLines sets the constants of the programs that depend on the tables of lines, whose
// sizes are known.
func setLines(spec *ebpf.CollectionSpec, info *bpfInterfaceInfo) error {
	return set(spec, map[string]any{
		"fast_path": info.Fast != 0, "line_seed": info.LineSeed,
		"bucket_mask": spec.Maps["places"].MaxEntries - 1, "bucket_mask6": spec.Maps["places6"].MaxEntries - 1,
		"max_places": spec.Maps["lines_in"].MaxEntries - 1, "max_places6": spec.Maps["lines6_in"].MaxEntries - 1,
	})
}

// lines is the memory of the lines of one interface.
type lines struct {
	maps   *bpfMaps
	mu     sync.Mutex
	opened atomic.Bool
	closed bool
	family [2]lineTable // IPv4, IPv6
}

// lineTable is the lines of a family.
type lineTable struct {
	memory [2][]byte // by direction
	size   int       // bytes of a line
	rest   int       // offset of bpfLineRest
}

// open maps the lines into memory, once.
func (l *lines) open() error {
	if l.opened.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.opened.Load():
		return nil
	case l.closed:
		return fmt.Errorf("read the lines of flows: the interface is %w", os.ErrClosed)
	}
	page := unix.Getpagesize()
	for n, maps := range [][2]*ebpf.Map{{l.maps.LinesIn, l.maps.LinesOut}, {l.maps.Lines6In, l.maps.Lines6Out}} {
		t := &l.family[n]
		t.size, t.rest = int(unsafe.Sizeof(bpfLine4{})), int(unsafe.Offsetof(bpfLine4{}.Rest))
		if n == 1 {
			t.size, t.rest = int(unsafe.Sizeof(bpfLine6{})), int(unsafe.Offsetof(bpfLine6{}.Rest))
		}
		for direction, m := range maps {
			size := int(m.ValueSize()) * int(m.MaxEntries())
			memory, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return errors.Join(fmt.Errorf("map the lines of flows: %w", err), l.unmap())
			}
			t.memory[direction] = memory[:size:len(memory)]
		}
	}
	l.opened.Store(true)
	return nil
}

func (l *lines) unmap() error {
	var errs []error
	for n := range l.family {
		for direction, memory := range l.family[n].memory {
			if memory != nil {
				errs = append(errs, unix.Munmap(memory[:cap(memory)]))
				l.family[n].memory[direction] = nil
			}
		}
	}
	return errors.Join(errs...)
}

func (l *lines) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if !l.opened.Swap(false) {
		return nil
	}
	return l.unmap()
}

// places returns the number of places, with place 0.
func (t *lineTable) places() uint32 { return uint32(len(t.memory[0]) / t.size) }

// at returns the line at a place. Packets change it all the time.
func (t *lineTable) at(place uint32, direction bpfDirection) (*bpfLine, *bpfLineRest) {
	line := t.memory[direction][int(place)*t.size:]
	return (*bpfLine)(unsafe.Pointer(&line[0])), (*bpfLineRest)(unsafe.Pointer(&line[t.rest]))
}

// add adds to an entry what its lines have counted.
func (l *lines) add(e *entry) error {
	f := &e.flow
	if f.Line == 0 {
		return nil
	}
	if err := l.open(); err != nil {
		return err
	}
	l.mu.Lock() // against close
	defer l.mu.Unlock()
	t := &l.family[bit(e.key.Is6())]
	if !l.opened.Load() || f.Line >= t.places() {
		return nil
	}
	last := f.LastJiffies
	for _, direction := range []bpfDirection{bpfDirectionDirectionIn, bpfDirectionDirectionOut} {
		line, rest := t.at(f.Line, direction)
		if atomic.LoadUint32(&line.Generation) != f.Generation {
			continue // freed meanwhile
		}
		count, dropped := atomic.LoadUint64(&line.Count), atomic.LoadUint64(&rest.Dropped)
		packets, bytes := count>>linePacketsShift, count&lineBytes
		if direction == bpfDirectionDirectionIn {
			f.PacketsIn += packets
			f.BytesIn += bytes
		} else {
			f.PacketsOut += packets
			f.BytesOut += bytes
		}
		f.Dropped += dropped >> linePacketsShift
		f.DroppedBytes += dropped & lineBytes
		e.ahead = e.ahead || count != 0
		if later := int32(atomic.LoadUint32(&line.Last) - uint32(last)); later > 0 {
			f.LastJiffies = max(f.LastJiffies, last+uint64(later))
		}
	}
	return nil
}

// lineOps returns the operations that are due on the lines of decided flows: their counts
// move to the flows' entries, where bpftool reads them; flows without lines get some.
func (t *Table) lineOps(entries []entry) []due {
	var ops []due
	for n := range entries {
		e := &entries[n]
		switch {
		case e.ahead:
			ops = append(ops, due{e, bpfOpKindOpCollect})
		case t.mayHaveLine(e):
			ops = append(ops, due{e, bpfOpKindOpLine})
		}
	}
	return ops
}

// mayHaveLine reports whether a flow may get lines (may_have_line in bpf/line.h, which has
// the last word).
func (t *Table) mayHaveLine(e *entry) bool {
	state := flowState(e.flow.State)
	if t.inbox.info.Fast == 0 || !e.decided || e.flow.Line != 0 || state.ended() != "" || !state.has(bpfFlowStateStateSettled) {
		return false
	}
	return e.key.Proto != flow.TCP || !t.bothEnds || state.has(bpfFlowStateStateConfirmed)
}

// usedPlace is a place whose lines are out of use.
type usedPlace struct {
	family  uint8
	place   uint32
	control uint64
}

// outOfUse returns the places whose lines went out of use.
func (l *lines) outOfUse() (out []usedPlace, err error) {
	if err := l.open(); err != nil {
		return nil, err
	}
	l.mu.Lock() // against close
	defer l.mu.Unlock()
	for n, family := range []uint8{4, 6} {
		var state bpfLineState
		if err := l.maps.LineStates.Lookup(uint32(n), &state); err != nil {
			return nil, fmt.Errorf("places of lines: %w", err)
		}
		t := &l.family[n]
		if !l.opened.Load() {
			return nil, nil
		}
		for place := uint32(1); place <= min(state.Fresh, t.places()-1); place++ {
			line, _ := t.at(place, bpfDirectionDirectionIn)
			control := atomic.LoadUint64(&line.Control)
			if control&(lineUsed|lineLive) == lineUsed {
				out = append(out, usedPlace{family, place, control})
			}
		}
	}
	return out, nil
}

// freePlaces frees the places whose lines went out of use, after no packet is at them any
// more.
func (t *Table) freePlaces() error {
	out, err := t.lines.outOfUse()
	if err != nil || len(out) == 0 {
		return err
	}
	if err := waitForPackets(); err != nil {
		return err
	}
	_, err = t.inbox.run(len(out), func(n int, op *bpfOp) error {
		op.Kind, op.Family = bpfOpKindOpFree, out[n].family
		op.Generation, op.LastJiffies = out[n].place, out[n].control
		return nil
	}, nil)
	return err
}
