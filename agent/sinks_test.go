// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// sweepWith has the next sweep of eth0 return flows.
func (r *rig) sweepWith(numbers ...int) {
	r.ports[0].with(func() { r.ports[0].ended = ended(numbers...) })
	time.Sleep(sweepEvery)
	synctest.Wait()
}

// A sink that never returns from Write holds up nothing: sweeps, verdicts and the
// other sink go on, what does not fit is shed and counted, Run returns at once and
// Close after its time limit.
func TestSinkStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		release := make(chan struct{})
		slow := &fakeSink{name: "slow", write: func(context.Context, int) error { <-release; return nil }}
		other := &fakeSink{name: "other"}
		r.config.Sinks, r.config.Queue = []Sink{slow, other}, 3
		r.start()
		r.sweepWith(1) // the one that is in Write
		r.sweepWith(2, 3)
		if r.log.count("too slow") != 0 {
			t.Errorf("records fit, but the log says: %s", &r.log.text)
		}
		r.sweepWith(4, 5, 6)
		r.sweepWith(7)
		if r.log.count("too slow") != 1 || r.log.count("sink=slow") != 1 {
			t.Errorf("log: %s", &r.log.text)
		}
		time.Sleep(publishEvery)
		synctest.Wait()
		if got := r.ports[0].last().LastError; got != `sink "slow" lost 3 flow records` {
			t.Errorf("published %q", got)
		}
		if got := other.records(); !slices.Equal(got, []uint16{1, 2, 3, 4, 5, 6, 7}) {
			t.Errorf("the other sink has %d", got)
		}
		before := get(&r.ports[0].mu, &r.ports[0].sweeps)
		r.classifier.decisions <- []flow.Decision{{ID: id(0, 1)}}
		time.Sleep(10 * sweepEvery)
		synctest.Wait()
		if got := get(&r.ports[0].mu, &r.ports[0].sweeps) - before; got != 10 || len(get(&r.ports[0].mu, &r.ports[0].applied)) != 1 {
			t.Errorf("%d sweeps in 10 intervals, %d verdicts", got, len(get(&r.ports[0].mu, &r.ports[0].applied)))
		}

		start := time.Now()
		r.stop()
		if took := time.Since(start); took != 0 {
			t.Errorf("Run took %v to end", took)
		}
		err := r.agent.Close(t.Context())
		if took := time.Since(start); took != DefaultDrain {
			t.Errorf("Close took %v, want %v", took, DefaultDrain)
		}
		if want := `sink "slow" lost 7 of 7 flow records`; !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "other") {
			t.Errorf("Close: %v, want %s", err, want)
		}
		if err := r.agent.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
		// What was counted as lost is not written later.
		close(release)
		synctest.Wait()
		if got := slow.records(); !slices.Equal(got, []uint16{1}) {
			t.Errorf("the abandoned sink has %d", got)
		}
	})
}

// The records that were queued before a stall are complete; the gap is after them.
func TestSinkResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		release := make(chan struct{})
		sink := &fakeSink{name: "slow", write: func(context.Context, int) error { <-release; return nil }}
		r.config.Sinks, r.config.Queue = []Sink{sink}, 2
		r.start()
		r.sweepWith(1)
		r.sweepWith(2, 3, 4, 5)
		close(release)
		r.sweepWith(6)
		r.stop()
		if err := r.agent.Close(t.Context()); err == nil || err.Error() != `sink "slow" lost 2 of 6 flow records` {
			t.Errorf("Close: %v", err)
		}
		if got := sink.records(); !slices.Equal(got, []uint16{1, 2, 3, 6}) {
			t.Errorf("the sink has %d", got)
		}
	})
}

// A sink that fails is logged once and tried again; the agent continues.
func TestSinkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		sink := &fakeSink{name: "disk", write: func(_ context.Context, n int) error {
			if n <= 3 {
				return errTest
			}
			return nil
		}}
		r.config.Sinks = []Sink{sink}
		r.start()
		r.sweepWith(1, 2)
		r.sweepWith(3, 4)
		if n := r.log.count(errTest.Error()); n != 1 || r.log.count("sink=disk") != 1 {
			t.Errorf("logged %d times: %s", n, &r.log.text)
		}
		time.Sleep(publishEvery)
		synctest.Wait()
		if got := r.ports[0].last(); got.LastError != `sink "disk" lost 3 flow records` || !got.Ready {
			t.Errorf("published %+v", got)
		}
		r.stop()
		if err := r.agent.Close(t.Context()); err == nil || err.Error() != `sink "disk" lost 3 of 4 flow records` {
			t.Errorf("Close: %v", err)
		}
		if got := sink.records(); !slices.Equal(got, []uint16{4}) {
			t.Errorf("the sink has %d", got)
		}
	})
}

// Close has everything written that waits, and then closes each sink once.
func TestSinkDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "eth0")
		sink := &fakeSink{name: "log", write: func(context.Context, int) error { time.Sleep(100 * time.Millisecond); return nil }}
		failing := &fakeSink{name: "bad", closeErr: errTest}
		r.config.Sinks = []Sink{sink, failing}
		r.start()
		r.ports[0].with(func() { r.ports[0].ended = ended(1, 2, 3, 4, 5) })
		start := time.Now()
		r.stop()
		if get(&sink.mu, &sink.closes) != 0 || get(&failing.mu, &failing.closes) != 0 {
			t.Error("Run closed a sink")
		}
		err := r.agent.Close(t.Context())
		if !errors.Is(err, errTest) || strings.Contains(err.Error(), "lost") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
		if got := sink.records(); !slices.Equal(got, []uint16{1, 2, 3, 4, 5}) || get(&sink.mu, &sink.closes) != 1 || get(&failing.mu, &failing.closes) != 1 {
			t.Errorf("the sink has %d, closed %d times", got, get(&sink.mu, &sink.closes))
		}
	})
}

// The caller's context and Config.Drain both bound Close, and end the context of
// the sinks.
func TestCloseLimits(t *testing.T) {
	for name, test := range map[string]struct{ drain, caller, want time.Duration }{
		"drain":  {time.Second, time.Hour, time.Second},
		"caller": {time.Hour, 2 * time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "eth0")
				sink := &fakeSink{name: "net", write: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }}
				r.config.Sinks, r.config.Drain = []Sink{sink}, test.drain
				r.start()
				r.sweepWith(1, 2)
				r.stop()
				ctx, cancel := context.WithTimeout(t.Context(), test.caller)
				defer cancel()
				start := time.Now()
				if err := r.agent.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 of 2") {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("Close took %v, want %v", took, test.want)
				}
				synctest.Wait()
				if get(&sink.mu, &sink.calls) != 1 || get(&sink.mu, &sink.closes) != 1 {
					t.Errorf("%d writes, %d closes after the limit", get(&sink.mu, &sink.calls), get(&sink.mu, &sink.closes))
				}
			})
		})
	}
}
