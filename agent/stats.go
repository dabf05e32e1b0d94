// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// publish stores the statistics of every port.
func (a *Agent) publish(ready bool) error {
	a.publishing.Lock()
	defer a.publishing.Unlock()
	var health Health
	if a.config.Classifier != nil {
		health = a.config.Classifier.Health()
	}
	p50, p99 := a.latency.quantiles()
	var problems []error
	for _, p := range a.serving() {
		now := time.Now()
		stats := loader.AgentStats{
			PID: os.Getpid(), Started: a.started, Ready: ready && !p.isFailing(now), Ending: a.ending.Load(),
			Classify: a.config.Classifier != nil, Model: health.Models, Says: health.Says, BatchMean: health.BatchMean,
			Samples: p.samples.Load(), Verdicts: p.verdicts.Load(), Shed: p.shed.Load(), Batches: p.batches.Load(),
			P50: loader.Milliseconds(p50), P99: loader.Milliseconds(p99), LastError: a.problem(health),
			TakesReload: a.config.SignalReload, ReloadsBegun: a.reloadsBegun, Reloads: a.reloads, ReloadError: a.reloadError,
		}
		stats.SamplesPerSecond, stats.VerdictsPerSecond = p.rates.next(now, stats.Samples, stats.Verdicts)
		if err := p.with(func() error { return p.Publish(stats) }); err != nil {
			problems = append(problems, fmt.Errorf("statistics of %q: %w", p.Name, err))
		}
	}
	return errors.Join(problems...)
}

// problem returns what the statistics show as "last error": lost records first, since
// nothing else reports them.
func (a *Agent) problem(health Health) string {
	var problems []string
	for _, q := range a.queues {
		if lost := q.lost.Load(); lost > 0 {
			problems = append(problems, fmt.Sprintf("sink %q lost %d flow records", q.sink.Name(), lost))
		}
	}
	a.mu.Lock()
	last := a.lastError
	a.mu.Unlock()
	if health.LastError != "" {
		last = health.LastError
	}
	if last != "" {
		problems = append(problems, last)
	}
	return strings.Join(problems, "; ")
}

// rates computes counts per second from counters.
type rates struct {
	at                time.Time
	samples, verdicts uint64
}

func (r *rates) next(now time.Time, samples, verdicts uint64) (samplesPerSecond, verdictsPerSecond float64) {
	if seconds := now.Sub(r.at).Seconds(); !r.at.IsZero() && seconds > 0 {
		samplesPerSecond = float64(samples-r.samples) / seconds
		verdictsPerSecond = float64(verdicts-r.verdicts) / seconds
	}
	*r = rates{now, samples, verdicts}
	return samplesPerSecond, verdictsPerSecond
}

// latencies keeps the newest times from a sample's packet until its verdict was stored.
type latencies struct {
	mu     sync.Mutex
	newest [4096]int64 // ns, a ring
	count  uint64
	sorted []int64
}

// add adds the latencies of decisions that were stored just now.
func (l *latencies) add(decisions []flow.Decision) {
	now, ok := monotonic()
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range decisions {
		if t := decisions[i].Time; t > 0 {
			l.newest[l.count%uint64(len(l.newest))] = now - t
			l.count++
		}
	}
}

// quantiles returns the median and the 99th percentile of the newest times.
func (l *latencies) quantiles() (p50, p99 time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int(min(l.count, uint64(len(l.newest))))
	if n == 0 {
		return 0, 0
	}
	l.sorted = append(l.sorted[:0], l.newest[:n]...)
	slices.Sort(l.sorted)
	return time.Duration(l.sorted[(n-1)/2]), time.Duration(l.sorted[(n-1)*99/100])
}

// monotonic is the kernel's clock of the samples (bpf_ktime_get_ns).
func monotonic() (int64, bool) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, false
	}
	return now.Nano(), true
}
