// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// readerDeadline limits how long a record waits if it was queued without a wake-up. The
// reader rounds to whole milliseconds: below 2 ms it would spin.
const readerDeadline = 2100 * time.Microsecond

// readRing calls fn with each record of a ring buffer until the context ends, and then
// returns nil. used is how many bytes are not yet read, size the size of the buffer.
func readRing(ctx context.Context, m *ebpf.Map, fn func(raw []byte, used, size int)) error {
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { reader.Close() })
	defer stop()
	defer reader.Close()

	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Nothing arrived for a while: the next record wakes the reader.
			reader.SetDeadline(time.Time{})
			continue
		case errors.Is(err, ringbuf.ErrClosed) && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		fn(record.RawSample, record.Remaining, reader.BufferSize())
		if record.Remaining == 0 {
			// Others may have been queued without a wake-up.
			reader.SetDeadline(time.Now().Add(readerDeadline))
		}
	}
}
