// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/dpclass/dpclass/flow"
)

// Sink takes the records of flows that ended, to export or to log them. The agent
// calls each sink from its own goroutine, one call at a time. A sink must not change a
// record, since other sinks may get the same one. A sink may be slow or fail: the agent
// then drops records and counts them, and everything else continues.
type Sink interface {
	// Name identifies the sink in log messages.
	Name() string

	// Write takes one record. An error loses only this record: the agent still calls
	// Write with the next one. The context ends when the agent closes and its time
	// limit has passed; the agent does not wait for a Write that does not return then.
	Write(ctx context.Context, record flow.Record) error

	// Close closes the sink after the last Write.
	Close(ctx context.Context) error
}

// queue holds the records that wait for one sink.
//
// It is bounded, and drops the newest record when it is full. This way the records up
// to a stall are complete and one gap follows. If it dropped the oldest, the gap would
// move as long as the sink stalls, and the sweep would need a lock that the sink also
// takes.
type queue struct {
	sink    Sink
	log     *slog.Logger
	records chan *flow.Record
	done    chan struct{} // closed once the sink is closed
	closing error         // result of the sink's Close; valid once done is closed

	offered, written, lost atomic.Uint64

	shedOnce, failOnce sync.Once // each kind of loss is logged once
}

func newQueue(sink Sink, size int, log *slog.Logger) *queue {
	return &queue{sink: sink, log: log, records: make(chan *flow.Record, size), done: make(chan struct{})}
}

// offer queues a record, or drops it if the queue is full. It never blocks.
func (q *queue) offer(record *flow.Record) {
	q.offered.Add(1)
	select {
	case q.records <- record:
	default:
		q.lost.Add(1)
		q.shedOnce.Do(func() {
			q.log.Warn("a sink is too slow: flow records are lost", "sink", q.sink.Name())
		})
	}
}

// work hands the records to the sink until the queue is closed and empty, then closes
// the sink. Once the context ends, it writes nothing more.
func (q *queue) work(ctx context.Context) {
	defer close(q.done)
	for record := range q.records {
		if ctx.Err() != nil {
			break
		}
		if err := q.sink.Write(ctx, *record); err != nil {
			q.lost.Add(1)
			q.failOnce.Do(func() {
				q.log.Error("a sink failed: flow records are lost", "sink", q.sink.Name(), "error", err)
			})
			continue
		}
		q.written.Add(1)
	}
	q.closing = q.sink.Close(ctx)
}

// finish waits until the sink has written the records in the closed queue, or until the
// context ends. The error says how many records were lost.
func (q *queue) finish(ctx context.Context) error {
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	var problem error
	select {
	case <-q.done: // even if the time is up, because another sink used it
		problem = q.closing
	default:
		problem = fmt.Errorf("not finished in time: %w", ctx.Err())
	}
	offered := q.offered.Load()
	lost := offered - q.written.Load()
	switch {
	case lost > 0 && problem != nil:
		return fmt.Errorf("sink %q lost %d of %d flow records: %w", q.sink.Name(), lost, offered, problem)
	case lost > 0:
		return fmt.Errorf("sink %q lost %d of %d flow records", q.sink.Name(), lost, offered)
	case problem != nil:
		return fmt.Errorf("sink %q: %w", q.sink.Name(), problem)
	}
	return nil
}
