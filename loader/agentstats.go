// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capabilities"
)

// AgentStats is what a live agent reports about itself. Counts are since it started.
type AgentStats struct {
	PID               int          `json:"pid"`
	Model             []string     `json:"model"` // at most two
	Started           time.Time    `json:"started"`
	Updated           time.Time    `json:"updated"` // set by Publish
	Samples           uint64       `json:"samples"`
	Verdicts          uint64       `json:"verdicts"`
	Shed              uint64       `json:"shed"` // samples that the classifier did not accept
	Batches           uint64       `json:"batches"`
	SamplesPerSecond  float64      `json:"samples_per_s"`
	VerdictsPerSecond float64      `json:"verdicts_per_s"`
	BatchMean         float64      `json:"batch_mean"` // samples
	P50               Milliseconds `json:"p50_ms"`     // packet to stored verdict
	P99               Milliseconds `json:"p99_ms"`
	RingBytes         uint64       `json:"ring_bytes"` // size of the sample ring
	RingUsed          uint64       `json:"ring_used"`  // bytes in it that are not yet read
	Classify          bool         `json:"classify"`
	Ready             bool         `json:"ready"`
	Ending            bool         `json:"-"` // it is about to let go of the interface
	LastError         string       `json:"last_error,omitempty"`

	TakesReload  bool   `json:"-"`                      // SIGUSR1 makes it load its models again
	ReloadsBegun uint32 `json:"-"`                      // of the models
	Reloads      uint32 `json:"reloads"`                // that ended, with success or not
	ReloadError  string `json:"reload_error,omitempty"` // of the last one; "" if it changed the models

	Landlock int                  `json:"landlock"` // version of the kernel's Landlock that limits it, 0 if none does
	Rights   *capabilities.Rights `json:"rights"`   // as the kernel says; nil if that is not known

	Says []map[flow.Task][]string `json:"-"` // labels that each model may say, in the order of Model
}

// hungAfter is the age of the statistics after which their agent counts as hung. A live one
// publishes them every second.
const hungAfter = 5 * time.Second

// isHung reports whether the agent has not reported for a while.
func (s *AgentStats) isHung(now time.Time) bool { return now.Sub(s.Updated) > hungAfter }

// Publish stores the agent's statistics, so that Status works in any process. It fills
// in the figures of the ring.
func (a *Attachment) Publish(s AgentStats) error {
	s.RingUsed, s.RingBytes = a.ring.fill()
	return putAgent(a.maps.Agent, &a.labels, &s)
}

// putAgent stores statistics. Without a table of labels, what the models say is not stored.
func putAgent(m *ebpf.Map, labels *nameTable, s *AgentStats) error {
	now, err := newClock(0)
	if err != nil {
		return err
	}
	raw := bpfAgentStats{
		StartedNs: uint64(s.Started.UnixNano()), UpdatedNs: uint64(now.mono),
		Samples: s.Samples, Verdicts: s.Verdicts, Shed: s.Shed, Batches: s.Batches,
		SamplesPerSecondMilli:  uint64(s.SamplesPerSecond * 1e3),
		VerdictsPerSecondMilli: uint64(s.VerdictsPerSecond * 1e3),
		BatchMeanMilli:         uint64(s.BatchMean * 1e3),
		P50Ns:                  uint64(s.P50), P99Ns: uint64(s.P99), RingBytes: s.RingBytes, RingUsed: s.RingUsed,
		Pid: uint32(s.PID), Classify: bit(s.Classify), Ready: bit(s.Ready), Ending: bit(s.Ending),
		TakesReload: bit(s.TakesReload), Landlock: uint32(s.Landlock), ReloadsBegun: s.ReloadsBegun, Reloads: s.Reloads,
	}
	for n, name := range s.Model[:min(len(s.Model), len(raw.Model))] {
		copy(raw.Model[n][:len(raw.Model[n])-1], name)
	}
	copy(raw.LastError[:len(raw.LastError)-1], s.LastError)
	copy(raw.ReloadError[:len(raw.ReloadError)-1], s.ReloadError)
	for n, says := range s.Says[:min(len(s.Says), len(raw.Says))] {
		for task, names := range says {
			for _, name := range names {
				// A label that the table lacks cannot be in a policy either.
				if label, err := labels.label(name); err == nil {
					raw.Says[n][task][label>>6] |= 1 << (label & 63)
				}
			}
		}
	}
	if err := m.Put(uint32(0), &raw); err != nil {
		return fmt.Errorf("publish the agent's statistics: %w", err)
	}
	return nil
}

// readAgent returns what the last agent of a map reported. Without a table of labels, what
// the models say is left out.
func readAgent(m *ebpf.Map, labels *nameTable) (*AgentStats, error) {
	now, err := newClock(0)
	if err != nil {
		return nil, err
	}
	var raw bpfAgentStats
	if err := m.Lookup(uint32(0), &raw); err != nil {
		return nil, fmt.Errorf("statistics of the agent: %w", err)
	}
	s := &AgentStats{
		PID: int(raw.Pid), Model: []string{}, Started: time.Unix(0, int64(raw.StartedNs)).UTC(), Updated: now.time(int64(raw.UpdatedNs)),
		Samples: raw.Samples, Verdicts: raw.Verdicts, Shed: raw.Shed, Batches: raw.Batches,
		SamplesPerSecond: float64(raw.SamplesPerSecondMilli) / 1e3, VerdictsPerSecond: float64(raw.VerdictsPerSecondMilli) / 1e3,
		BatchMean: float64(raw.BatchMeanMilli) / 1e3, P50: Milliseconds(raw.P50Ns), P99: Milliseconds(raw.P99Ns),
		RingBytes: raw.RingBytes, RingUsed: raw.RingUsed, Classify: raw.Classify != 0, Ready: raw.Ready != 0, Ending: raw.Ending != 0,
		LastError: cString(raw.LastError[:]), TakesReload: raw.TakesReload != 0, Landlock: int(raw.Landlock),
		ReloadsBegun: raw.ReloadsBegun, Reloads: raw.Reloads, ReloadError: cString(raw.ReloadError[:]),
	}
	var known []string
	if labels != nil {
		known = labels.list()
	}
	for n := range raw.Model {
		if name := cString(raw.Model[n][:]); name != "" {
			s.Model = append(s.Model, name)
			s.Says = append(s.Says, labels.said(known, &raw.Says[n]))
		}
	}
	return s, nil
}

// Agent returns what the live agent reports, nil if none is alive.
func (p *Pins) Agent() (*AgentStats, error) {
	if live, err := isLocked(p.dir); err != nil || !live {
		return nil, err
	}
	s, err := readAgent(p.maps.Agent, &p.labels)
	if err != nil {
		return nil, err
	}
	if rights, err := capabilities.Of(s.PID); err == nil {
		s.Rights = &rights
	}
	return s, nil
}

// agentOf returns what the agent of a pin directory reported last.
func agentOf(dir string) (*AgentStats, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "agent"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("pinned map %q: %w", "agent", err)
	}
	defer m.Close()
	return readAgent(m, nil)
}

// said returns the labels in a model's bit sets.
func (t *nameTable) said(known []string, sets *[flow.NumTasks]labelSet) map[flow.Task][]string {
	says := map[flow.Task][]string{}
	for _, name := range known {
		label, err := t.label(name)
		for task := range sets {
			if err == nil && sets[task][label>>6]>>(label&63)&1 != 0 {
				says[flow.Task(task)] = append(says[flow.Task(task)], name)
			}
		}
	}
	return says
}

// agentPID returns the id of the last process that reported serving the pins, or 0.
func agentPID(dir string) int {
	stats, err := agentOf(dir)
	if err != nil {
		return 0
	}
	return stats.PID
}
