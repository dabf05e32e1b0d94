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

// Sink takes the records of flows that ended, to export or to log them. The
// agent calls each sink from a goroutine of its own, one call at a time, and
// other sinks may have the same record: a sink does not change it. A sink may
// be slow or fail: the agent sheds records and counts them, and everything else
// goes on.
type Sink interface {
	// Name identifies the sink in log messages.
	Name() string

	// Write takes one record. An error loses this record only: the next one is
	// tried again. The context ends when the agent closes and its time limit has
	// passed; a Write that does not return then is abandoned.
	Write(ctx context.Context, record flow.Record) error

	// Close ends the work of the sink after the last Write.
	Close(ctx context.Context) error
}

// queue holds the records that wait for one sink.
//
// It is bounded, and sheds the newest record when it is full. Shedding the oldest
// would have the reader of a log see a gap whose place moves as long as the sink
// stalls. This way the records up to the stall are complete, one gap follows, and
// the sweep needs no lock that the sink also takes.
type queue struct {
	sink    Sink
	log     *slog.Logger
	records chan *flow.Record
	done    chan struct{} // closed once the sink is closed
	closing error         // of the sink's Close; valid once done is closed

	offered, written, lost atomic.Uint64

	shedOnce, failOnce sync.Once // each kind of loss is logged once
}

func newQueue(sink Sink, size int, log *slog.Logger) *queue {
	return &queue{sink: sink, log: log, records: make(chan *flow.Record, size), done: make(chan struct{})}
}

// offer queues a record, or sheds it where the queue is full. It never blocks.
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

// work hands the records to the sink until the queue is closed and empty, and
// closes the sink. Once the context ends nothing more is written.
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

// finish waits until the sink has written what is in the closed queue, or until
// the context ends. The error says how many records were lost.
func (q *queue) finish(ctx context.Context) error {
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	var problem error
	select {
	case <-q.done: // even where the time is up: another sink took it
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
