// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/dpclass/dpclass/flow"
)

// readerDeadline bounds how long a sample waits that was queued without a
// wake-up. The reader rounds to whole milliseconds: below 2 ms it would spin.
const readerDeadline = 2100 * time.Microsecond

const sampleHeader = int(unsafe.Sizeof(bpfSample{}))

// Samples calls fn with each sample until the context ends. The sample and its
// packet are valid during the call only; ID.Iface is 0. fn must not block: what
// it does not take in time fills the ring, and the kernel counts what does not
// fit.
func (i *Interface) Samples(ctx context.Context, fn func(*flow.Sample)) error {
	reader, err := ringbuf.NewReader(i.maps.Samples)
	if err != nil {
		return fmt.Errorf("sample ring of %q: %w", i.name, err)
	}
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	defer reader.Close()

	var record ringbuf.Record
	var s flow.Sample
	for {
		err := reader.ReadInto(&record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Nothing came for a while: the next sample wakes the reader.
			reader.SetDeadline(time.Time{})
			continue
		case errors.Is(err, ringbuf.ErrClosed) && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("sample ring of %q: %w", i.name, err)
		}
		if decodeSample(record.RawSample, &s) {
			fn(&s)
		}
		if record.Remaining == 0 {
			// Others may have been queued without a wake-up.
			reader.SetDeadline(time.Now().Add(readerDeadline))
			i.noteRing(0, reader.BufferSize())
		} else {
			i.noteRing(record.Remaining, reader.BufferSize())
		}
	}
}

func (i *Interface) noteRing(used, size int) {
	i.ringMu.Lock()
	i.ringUsed, i.ringBytes = uint64(used), uint64(size)
	i.ringMu.Unlock()
}

// decodeSample reads a record of the ring. It is false for a record that is none.
func decodeSample(raw []byte, s *flow.Sample) bool {
	if len(raw) < sampleHeader {
		return false
	}
	header := *(*bpfSample)(unsafe.Pointer(&raw[0]))
	packet := raw[sampleHeader:]
	if int(header.Captured) > len(packet) {
		return false
	}
	*s = flow.Sample{
		ID:        flow.ID{Key: keyOf(&header.Key, header.Family), Generation: header.Generation},
		Direction: flow.Direction(header.Direction),
		Index:     int(header.Index),
		Time:      int64(header.TimeNs),
		Length:    int(header.Length),
		Packet:    packet[:header.Captured],
	}
	return true
}
