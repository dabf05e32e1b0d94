// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// slot is a queued sample.
type slot struct {
	sample flow.Sample   // its Packet is in packet
	queued time.Duration // since the classifier's start
	packet [vector.Size]byte
}

// shard is the queue and the flow table of one worker. All samples of a flow go
// to the same shard, so that they are combined in the order in which they came.
type shard struct {
	batch int
	delay time.Duration
	clock func() time.Duration

	mu      sync.Mutex
	queue   []slot // a ring
	head    int
	length  int
	table   *table
	fresh   *runner // to be taken by the worker in place of its own
	filled  bool    // the worker waits for a full batch
	skipped uint64  // samples that needed no network

	pending chan struct{} // holds a token once the queue is not empty
	wakeup  int           // eventfd: the batch that the worker waits for is full, or the context ended
	buffer  [8]byte       // for reading it
	poll    [1]unix.PollFd
	timeout unix.Timespec
}

func newShard(queue, batch, flows int, delay time.Duration, j *judge, clock func() time.Duration) (*shard, error) {
	// Go's timers wait for whole milliseconds in an idle program, so a batch's
	// deadline is kept by ppoll on an eventfd.
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	s := &shard{
		batch: batch, delay: delay, clock: clock, queue: make([]slot, queue),
		table: newTable(j, flows), pending: make(chan struct{}, 1), wakeup: wakeup,
	}
	s.poll[0] = unix.PollFd{Fd: int32(wakeup), Events: unix.POLLIN}
	return s, nil
}

// put queues a sample; false: the queue is full.
func (s *shard) put(sample *flow.Sample) bool {
	now := s.clock()
	s.mu.Lock()
	if s.length == len(s.queue) {
		s.mu.Unlock()
		return false
	}
	to := &s.queue[(s.head+s.length)%len(s.queue)]
	to.sample, to.queued = *sample, now
	to.sample.Packet = to.packet[:copy(to.packet[:], sample.Packet)]
	s.length++
	first := s.length == 1
	signal := s.filled && s.length >= s.batch
	if signal {
		s.filled = false
	}
	s.mu.Unlock()
	if first {
		select {
		case s.pending <- struct{}{}:
		default: // the token is there already
		}
	}
	if signal {
		s.wake()
	}
	return true
}

// wake ends the worker's wait for a full batch.
func (s *shard) wake() {
	// It cannot fail: the counter is far from its limit.
	_, _ = unix.Write(s.wakeup, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// wakeWith has the end of the context wake the worker. After stop, the context does
// not use the shard, which may then be closed.
func (s *shard) wakeWith(ctx context.Context) (stop func()) {
	woken := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		s.wake()
		close(woken)
	})
	return func() {
		if !cancel() {
			<-woken
		}
	}
}

// wait returns once a batch is due: it is full, or the oldest sample has waited
// for the delay. The end of the context ends it too, given wakeWith.
func (s *shard) wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		length, left := s.length, time.Duration(0)
		if length > 0 {
			left = s.queue[s.head].queued + s.delay - s.clock()
		}
		s.filled = length > 0 && length < s.batch && left > 0
		wait := s.filled
		s.mu.Unlock()
		if length == 0 {
			select {
			case <-s.pending:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if !wait {
			return ctx.Err()
		}
		s.timeout = unix.NsecToTimespec(int64(left))
		n, err := unix.Ppoll(s.poll[:], &s.timeout, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a batch: %w", err)
		}
		if n > 0 {
			// Emptied for the next time; it was just seen to be readable.
			_, _ = unix.Read(s.wakeup, s.buffer[:])
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// ticket is what a batch remembers of a sample.
type ticket struct {
	id    flow.ID
	state *state // of the flow, unless it was forgotten meanwhile
	index int
	time  int64
}

// takeMost bounds the samples that one take reads, in batches: it holds the lock, and most
// samples need no network.
const takeMost = 4

// take reads queued samples until it has a batch for the networks: it moves their vectors
// into the runner and appends tickets for them. Flows about which the networks have
// nothing to add get their decisions at once. Samples of settled flows are left out.
func (s *shard) take(r *runner, tickets []ticket, decisions []flow.Decision) ([]ticket, []flow.Decision) {
	tickets, decisions = tickets[:0], decisions[:0]
	j := s.table.judge
	for read := 0; s.length > 0 && len(tickets) < s.batch && read < takeMost*s.batch; read++ {
		from := &s.queue[s.head].sample
		s.head = (s.head + 1) % len(s.queue)
		s.length--
		st := s.table.get(from.ID, from.Index)
		if st.settled {
			continue
		}
		changed := j.add(&st.clues, from)
		s.table.bound(st)
		t := ticket{id: from.ID, state: st, index: from.Index, time: from.Time}
		if j.asksNetwork(&st.clues) && st.asked < j.samples {
			if st.networks == nil {
				st.networks = s.table.aggregate()
			}
			st.asked++
			vector.Make(r.vector(len(tickets)), from.Packet, false)
			tickets = append(tickets, t)
			continue
		}
		s.skipped++
		if changed || s.isLast(&t) || !st.clues.found.waiting {
			decisions = s.conclude(&t, decisions)
		}
	}
	return tickets, decisions
}

// isLast reports whether no more samples of the flow come. The kernel samples the budget
// and no more: where samples were lost on the way here, its last one must be the last one
// here too.
func (s *shard) isLast(t *ticket) bool {
	return t.state.missed && t.index >= s.table.judge.budget-1
}

// conclude appends the decision on a ticket's flow.
func (s *shard) conclude(t *ticket, decisions []flow.Decision) []flow.Decision {
	st, j := t.state, s.table.judge
	d := flow.Decision{ID: t.id, Evidence: st.clues.evidence, Samples: st.clues.seen, Time: t.time}
	d.Verdicts, d.Settled = j.verdicts(st.networks, &st.clues, s.isLast(t))
	if st.networks != nil && st.clues.found.category == "" {
		d.Samples = st.networks.n
	}
	if d.Settled {
		s.table.settle(st)
	}
	return putDecision(decisions, d)
}

// decide combines a batch's results with what is known of the flows. Each flow
// of the batch gives one decision, its newest.
func (s *shard) decide(r *runner, tickets []ticket, decisions []flow.Decision) []flow.Decision {
	for i := range tickets {
		t := &tickets[i]
		if t.state.id != t.id || t.state.settled || t.state.networks == nil {
			continue // forgotten, or an earlier sample of this batch was decisive
		}
		s.table.judge.decider.add(t.state.networks, r.row(i))
		decisions = s.conclude(t, decisions)
	}
	return decisions
}

// putDecision appends a decision, in place of an older one on the same flow.
func putDecision(decisions []flow.Decision, decision flow.Decision) []flow.Decision {
	for i := range decisions {
		if decisions[i].ID == decision.ID {
			decisions[i] = decision
			return decisions
		}
	}
	return append(decisions, decision)
}

// restart drops what was sampled for the models before, samples that wait included:
// their index in the flow says nothing once the flow is sampled again.
func (s *shard) restart(j *judge) {
	s.length = 0
	s.table.restart(j)
}

func (s *shard) close() error { return unix.Close(s.wakeup) }
