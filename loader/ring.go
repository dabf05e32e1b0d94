// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"fmt"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

const sampleHeader = int(unsafe.Sizeof(bpfSample{}))

// Ring is the samples of one interface.
type Ring struct {
	iface string
	m     *ebpf.Map

	mu   sync.Mutex
	used int // bytes that were not yet read when the last sample was read
	size int // bytes; 0: not read yet
}

// Samples calls fn with each sample until the context ends, and then returns nil. The
// sample and its packet are valid during the call only; ID.Iface is 0. fn must not
// block: samples that it does not take in time fill the ring, and the kernel counts
// those that do not fit. There can be one call at a time.
func (r *Ring) Samples(ctx context.Context, fn func(*flow.Sample)) error {
	var s flow.Sample
	err := readRing(ctx, r.m, func(raw []byte, used, size int) {
		if decodeSample(raw, &s) {
			fn(&s)
		}
		r.note(used, size)
	})
	if err != nil {
		return fmt.Errorf("sample ring of %q: %w", r.iface, err)
	}
	return nil
}

func (r *Ring) note(used, size int) {
	r.mu.Lock()
	r.used, r.size = used, size
	r.mu.Unlock()
}

// fill returns how many bytes of the ring are used, and its size.
func (r *Ring) fill() (used, size uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size == 0 {
		return 0, uint64(r.m.MaxEntries())
	}
	return uint64(r.used), uint64(r.size)
}

// decodeSample decodes a record of the ring and reports whether it is well formed.
func decodeSample(raw []byte, s *flow.Sample) bool {
	if len(raw) < sampleHeader {
		return false
	}
	header := *(*bpfSample)(unsafe.Pointer(&raw[0]))
	packet := raw[sampleHeader:]
	if int(header.Captured) > len(packet) {
		return false
	}
	*s = sampleOf(&header, packet)
	return true
}

// sampleOf returns the sample with a header. The packet must be as long as the header says.
func sampleOf(header *bpfSample, packet []byte) flow.Sample {
	return flow.Sample{
		ID:        flow.ID{Key: keyOf(&header.Key, header.Family), Generation: header.Generation},
		Direction: flow.Direction(header.Direction),
		FromA:     header.FromA != 0,
		TwoWay:    header.TwoWay != 0,
		Inner:     header.Inner != 0,
		Index:     int(header.Index),
		Time:      int64(header.TimeNs),
		Length:    int(header.Length),
		Packet:    packet[:header.Captured],
	}
}
