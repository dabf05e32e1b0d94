// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// publish writes the agent's statistics where `dpclass status` reads them.
func (a *Agent) publish() error {
	p50, p99 := a.latency.quantiles()
	var problem error
	for _, p := range a.ports {
		stats := loader.AgentStats{
			PID: os.Getpid(), Started: a.started, Updated: time.Now(), Ready: true,
			Samples: p.samples.Load(), Verdicts: p.verdicts.Load(), Shed: p.shed.Load(), Batches: p.batches.Load(),
			P50: p50, P99: p99, Classify: a.config.Classifier != nil,
		}
		if stats.Batches > 0 {
			stats.BatchMean = float64(p.batched.Load()) / float64(stats.Batches)
		}
		a.mu.Lock()
		stats.LastError = a.lastError
		a.mu.Unlock()
		if c := a.config.Classifier; c != nil {
			stats.Model = ModelNames(c.Models())
			counts := c.Stats()
			stats.BatchMean = counts.BatchMean
			if counts.LastError != "" {
				stats.LastError = counts.LastError
			}
		}
		stats.SamplesPerSecond, stats.VerdictsPerSecond = p.rates.next(stats.Updated, stats.Samples, stats.Verdicts)
		if err := p.Publish(stats); err != nil {
			problem = errors.Join(problem, fmt.Errorf("statistics of %q: %w", p.Name(), err))
		}
	}
	return problem
}

// rates makes counts a second from counters.
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

// latencies keeps the newest times from a sample's packet to its verdict being
// stored.
type latencies struct {
	mu     sync.Mutex
	newest [4096]int64 // ns, a ring
	count  uint64
	sorted []int64
}

// add notes decisions that were stored just now.
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
