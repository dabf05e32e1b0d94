// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// testShard returns a shard with a clock that stands still until it is set, and
// a runner without a network: its rows are what the test writes into them.
func testShard(t *testing.T, d *decider, queue, batch, flows int, delay time.Duration) (*shard, *runner, *atomic.Int64) {
	t.Helper()
	now := &atomic.Int64{}
	s, err := newShard(queue, batch, flows, delay, modelJudge(d), func() time.Duration { return time.Duration(now.Load()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, testRunner(t, d, batch), now
}

// testRunner returns a runner without a network.
func testRunner(t *testing.T, d *decider, batch int) *runner {
	t.Helper()
	e := &engine{decider: d}
	e.users.Store(1)
	r := newRunner(e, batch)
	t.Cleanup(r.close)
	return r
}

// fill writes the same rows, one for each task, for every vector of the batch.
func fill(r *runner, rows ...[]float32) {
	for i := range r.batch {
		for t, row := range rows {
			copy(r.row(i)[t], row)
		}
	}
}

func TestBatchWhenFull(t *testing.T) {
	s, r, _ := testShard(t, testDecider(false), 64, 4, 100, time.Hour)
	due := make(chan error)
	go func() { due <- s.wait(t.Context()) }()
	for i := range 3 {
		s.put(sample(i, 0))
	}
	select {
	case err := <-due:
		t.Fatalf("a batch of 3 of 4 went out before its deadline: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	s.put(sample(3, 0))
	s.put(sample(4, 0))
	if err := <-due; err != nil {
		t.Fatal(err)
	}
	tickets, _ := s.take(r, nil, nil)
	if len(tickets) != 4 || s.length != 1 {
		t.Errorf("batch of %d, %d left; want 4 and 1", len(tickets), s.length)
	}
	for i, ticket := range tickets {
		if ticket.id != flowID(i) {
			t.Errorf("sample %d of the batch is of flow %v", i, ticket.id)
		}
		if got, want := string(r.vector(i)[:]), string(vectorOf(sample(i, 0))); got != want {
			t.Errorf("vector %d is not that of its packet", i)
		}
	}
}

func TestBatchAtDeadline(t *testing.T) {
	s, r, now := testShard(t, testDecider(false), 64, 4, 100, 300*time.Microsecond)
	s.put(sample(0, 0))
	now.Store(int64(299 * time.Microsecond))
	s.put(sample(1, 0))
	now.Store(int64(300 * time.Microsecond))
	// The oldest sample's deadline counts, and time spent waiting for the worker is part of it.
	if err := s.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tickets, _ := s.take(r, nil, nil); len(tickets) != 2 {
		t.Errorf("batch of %d, want 2", len(tickets))
	}
}

func TestBatchAtDeadlineInRealTime(t *testing.T) {
	s, _, _ := testShard(t, testDecider(false), 64, 4, 100, 2*time.Millisecond)
	begin := time.Now()
	s.clock = func() time.Duration { return time.Since(begin) }
	go func() { s.put(sample(0, 0)) }()
	if err := s.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.clock() < 2*time.Millisecond {
		t.Error("the batch went out before its deadline")
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	s, _, _ := testShard(t, testDecider(false), 64, 4, 100, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	due := make(chan error)
	go func() { due <- s.wait(ctx) }()
	cancel()
	if err := <-due; !errors.Is(err, context.Canceled) {
		t.Errorf("wait returned %v", err)
	}
}

// TestWorkEndsWithContext ends a worker whose batch is neither full nor due for an hour.
func TestWorkEndsWithContext(t *testing.T) {
	s, _, _ := testShard(t, testDecider(false), 64, 4, 100, time.Hour)
	s.put(sample(0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- new(Classifier).work(ctx, s, nil) }()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		waits = s.filled
		s.mu.Unlock()
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		s.wake() // so that nothing uses the shard once it is closed
		<-ended
		t.Error("the worker did not end with the context")
	}
}

// TestShedOneWayFirst: samples of one-way flows and of a source that floods leave room for others.
func TestShedOneWayFirst(t *testing.T) {
	const size = 64
	s, r, _ := testShard(t, testDecider(false), size, 4, 100, time.Hour)
	taken := 0
	put := func(n int, twoWay bool, source string) {
		t.Helper()
		one := sample(n, 0)
		one.TwoWay = twoWay
		if source != "" {
			one.ID.Key.A, one.FromA = netip.MustParseAddrPort(source), true
		}
		if s.put(one) {
			taken++
		}
	}
	expect := func(what string, want int) {
		t.Helper()
		if taken != want {
			t.Errorf("%s: %d samples were taken, want %d", what, taken, want)
		}
		taken = 0
	}
	for n := range 3 * size {
		put(n, false, "")
	}
	expect("one-way flows of many sources", size/queueOneWay)
	for n := range size {
		put(1000+n, true, fmt.Sprintf("[2001:db8::%x]:%d", n+1, 1000+n)) // one /64
	}
	expect("two-way flows of one source", size/queueShare)
	put(2000, true, "[2001:db8:1::1]:1000")
	put(2001, true, "192.0.2.1:1000")
	expect("two-way flows of others", 2)
	for s.length > 0 {
		s.take(r, nil, nil)
	}
	if s.sources != [sourceBuckets]uint32{} {
		t.Error("an empty queue has samples of some source")
	}
	put(3000, false, "")
	expect("a one-way flow, with an empty queue", 1)
	s.restart(s.table.judge, 1)
	if s.sources == [sourceBuckets]uint32{} {
		t.Error("a restarted queue keeps its samples, but not whose they are")
	}
}

func TestShedWhenFull(t *testing.T) {
	s, r, _ := testShard(t, testDecider(false), 8, 4, 100, time.Hour)
	for i := range 8 {
		if !s.put(sample(i, 0)) {
			t.Fatalf("sample %d of 8 was shed", i)
		}
	}
	if s.put(sample(8, 0)) {
		t.Fatal("a full queue took a sample")
	}
	s.take(r, nil, nil)
	for i := range 4 {
		if !s.put(sample(9+i, 0)) {
			t.Fatal("a sample was shed although a batch has gone")
		}
	}
	var got []flow.ID
	for range 2 {
		tickets, _ := s.take(r, nil, nil)
		for _, ticket := range tickets {
			got = append(got, ticket.id)
		}
	}
	for i, n := range []int{4, 5, 6, 7, 9, 10, 11, 12} {
		if got[i] != flowID(n) {
			t.Errorf("place %d has flow %v, want flow %d: the order is lost", i, got[i], n)
		}
	}
}

func TestDecideOneFlow(t *testing.T) {
	s, r, _ := testShard(t, testDecider(false), 64, 4, 100, time.Hour)
	fill(r, []float32{.93, .035, .035})
	for i := range 3 {
		s.put(sample(0, i))
	}
	s.put(sample(1, 0))
	tickets, _ := s.take(r, nil, nil)
	decisions := s.decide(r, tickets, nil)
	if len(decisions) != 2 {
		t.Fatalf("%d decisions on two flows", len(decisions))
	}
	// .93 and .035: final after the second sample, the third changes nothing.
	if d := decisions[0]; d.ID != flowID(0) || d.Samples != 2 || !d.Settled || d.Time != sample(0, 1).Time {
		t.Errorf("flow 0: %+v, want it final with 2 samples", d)
	}
	if d := decisions[1]; d.ID != flowID(1) || d.Samples != 1 || d.Settled {
		t.Errorf("flow 1: %+v, want it provisional with 1 sample", d)
	}
	s.put(sample(0, 3))
	s.put(sample(1, 1))
	tickets, _ = s.take(r, nil, nil)
	if len(tickets) != 1 || tickets[0].id != flowID(1) {
		t.Errorf("batch of %+v; want the sample of the decided flow left out", tickets)
	}
}

func TestDecideBudget(t *testing.T) {
	s, r, _ := testShard(t, testDecider(false), 64, 8, 100, time.Hour)
	fill(r, []float32{.34, .33, .33})
	for i := range 6 {
		s.put(sample(0, i))
	}
	// Its first samples went to an agent that is gone.
	for i := 3; i < 5; i++ {
		s.put(sample(1, i))
	}
	tickets, _ := s.take(r, nil, nil)
	for _, d := range s.decide(r, tickets, nil) {
		want := map[flow.ID]int{flowID(0): 5, flowID(1): 2}[d.ID]
		if d.Samples != want || !d.Settled || d.Verdicts[flow.Category].Label != flow.Unknown {
			t.Errorf("%+v, want a final unknown after %d samples", d, want)
		}
	}
}

func TestForgetOnTheWay(t *testing.T) {
	s, r, _ := testShard(t, testDecider(false), 64, 4, 10, time.Hour)
	fill(r, []float32{.5, .3, .2})
	s.put(sample(0, 0))
	s.put(sample(1, 0))
	tickets, _ := s.take(r, nil, nil)
	s.table.forget(flowID(0))
	s.table.get(flowID(2), 0) // takes the place of flow 0
	decisions := s.decide(r, tickets, nil)
	if len(decisions) != 1 || decisions[0].ID != flowID(1) {
		t.Errorf("%+v, want a decision on flow 1 alone", decisions)
	}
	if n := s.table.get(flowID(2), 0).networks; n != nil {
		t.Errorf("flow 2 has %d samples of a flow that was forgotten", n.n)
	}
}

func TestTableIsBounded(t *testing.T) {
	s, r, _ := testShard(t, testDecider(false), 64, 4, 3, time.Hour)
	fill(r, []float32{.5, .3, .2})
	decide := func(n, i int) flow.Decision {
		s.put(sample(n, i))
		tickets, _ := s.take(r, nil, nil)
		return s.decide(r, tickets, nil)[0]
	}
	for n := range 3 {
		decide(n, 0)
	}
	decide(0, 1) // 1 is the oldest now
	decide(3, 0)
	if len(s.table.states) != 3 {
		t.Errorf("%d flows, want 3", len(s.table.states))
	}
	if d := decide(0, 2); d.Samples != 3 {
		t.Errorf("flow 0 was forgotten: %d samples", d.Samples)
	}
	if d := decide(1, 1); d.Samples != 1 {
		t.Errorf("flow 1 was not forgotten: %d samples", d.Samples)
	}
	s.table.forget(flowID(1))
	s.table.forget(flowID(99)) // never seen
	if d := decide(1, 0); d.Samples != 1 || len(s.table.states) != 3 {
		t.Errorf("flow 1 was not forgotten: %d samples, %d flows", d.Samples, len(s.table.states))
	}
}

// After a swap final verdicts stay, for each task, and everything else begins again.
func TestRestart(t *testing.T) {
	s, r, _ := testShard(t, testDecider(true), 64, 4, 10, time.Hour)
	decide := func(n int, category, app []float32) flow.Decision {
		fill(r, category, app)
		s.put(sample(n, 3)) // its first samples went to an agent that is gone
		tickets, _ := s.take(r, nil, nil)
		return s.decide(r, tickets, nil)[0]
	}
	sure, unsure, sureApp, even := []float32{.98, .01, .01}, []float32{.5, .3, .2}, []float32{.99, .01}, []float32{.5, .5}
	decide(0, sure, sureApp)
	frozen := decide(1, sure, even).Verdicts[flow.Category]
	if !frozen.Final {
		t.Fatalf("%+v is not final", frozen)
	}
	decide(2, unsure, even)
	waiting := sample(4, 4) // the last one of a flow whose first ones went elsewhere
	s.put(waiting)

	next := testDecider(true)
	next.heads[flow.Category].model, next.heads[flow.App].model = "next", "next"
	next.heads[flow.Category].labels = []string{"email", "voip"}
	s.restart(modelJudge(next), waiting.Time+1)
	s.put(sample(0, 0))
	r = testRunner(t, next, 4)
	fill(r, []float32{.4, .6}, even)
	tickets, _ := s.take(r, nil, nil)
	if len(tickets) != 1 || tickets[0].id != waiting.ID {
		t.Fatalf("%+v: want the sample that waited, and not that of a decided flow", tickets)
	}
	// More of this flow come, although its index says that it is the last one.
	if d := s.decide(r, tickets, nil)[0]; d.Settled || d.Verdicts[flow.Category].Model != "next" {
		t.Errorf("the sample that waited: %+v", d)
	}
	for _, n := range []int{1, 2} {
		d := decide(n, []float32{.4, .6}, even)
		if d.Samples != 1 || d.Settled || d.Verdicts[flow.App].Model != "next" || d.Verdicts[flow.App].Final {
			t.Errorf("flow %d: %+v, want a new app from one sample", n, d)
		}
		c := d.Verdicts[flow.Category]
		if n == 1 && c != frozen {
			t.Errorf("flow 1: category %+v, want the final %+v", c, frozen)
		}
		if n == 2 && (c.Final || c.Label != "voip" || c.Model != "next") {
			t.Errorf("flow 2: category %+v, want a new one", c)
		}
	}
}
