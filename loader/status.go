// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf/btf"
)

// reasons returns the names of enum reason, by number.
var reasons = sync.OnceValues(func() ([]string, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("BPF objects: %w", err)
	}
	var reason *btf.Enum
	if err := spec.Types.TypeByName("reason", &reason); err != nil {
		return nil, fmt.Errorf("BPF objects: %w", err)
	}
	names := make([]string, bpfReasonReasonCount)
	for _, value := range reason.Values {
		if value.Value < uint64(len(names)) {
			names[value.Value] = strings.TrimPrefix(value.Name, "reason_")
		}
	}
	return names, nil
})

// AgentStats is what a live agent says of itself.
type AgentStats struct {
	PID               int           `json:"pid"`
	Model             []string      `json:"model"` // at most two
	Started           time.Time     `json:"started"`
	Updated           time.Time     `json:"updated"`
	Samples           uint64        `json:"samples"`
	Verdicts          uint64        `json:"verdicts"`
	Shed              uint64        `json:"shed"` // samples that the classifier did not take
	Batches           uint64        `json:"batches"`
	SamplesPerSecond  float64       `json:"samples_per_second"`
	VerdictsPerSecond float64       `json:"verdicts_per_second"`
	BatchMean         float64       `json:"batch_mean"` // samples
	P50               time.Duration `json:"p50_ns"`     // packet to stored verdict
	P99               time.Duration `json:"p99_ns"`
	RingBytes         uint64        `json:"ring_bytes"` // size of the sample ring
	RingUsed          uint64        `json:"ring_used"`  // and what of it was not read yet
	Classify          bool          `json:"classify"`
	Ready             bool          `json:"ready"`
	LastError         string        `json:"last_error,omitempty"`
}

// Status is the state of an attached interface.
type Status struct {
	Iface      string            `json:"iface"`
	Mode       Mode              `json:"mode"`
	Clsact     bool              `json:"clsact,omitempty"` // tc filters in place of tcx
	Driver     string            `json:"driver"`
	Netns      string            `json:"netns"` // cookie
	Attached   time.Time         `json:"attached"`
	Hooks      []Hook            `json:"hooks"`
	Counters   map[string]uint64 `json:"counters"` // by reason
	Flows      int               `json:"flows"`    // decided, IPv4 and IPv6
	FlowsMax   int               `json:"flows_max"`
	Pending    int               `json:"pending"`
	PendingMax int               `json:"pending_max"`
	Ended      uint64            `json:"ended"`
	Samples    int               `json:"samples"` // budget of a flow
	VLAN       bool              `json:"vlan"`
	Rules      int               `json:"rules"` // of the policy in force
	Agent      *AgentStats       `json:"agent"` // nil: none is alive
	Ready      bool              `json:"ready"`
}

// Counters returns how often each reason was counted, over all CPUs.
func (i *Interface) Counters() (map[string]uint64, error) {
	names, err := reasons()
	if err != nil {
		return nil, err
	}
	counters := map[string]uint64{}
	for n, name := range names {
		var perCPU []uint64
		if err := i.maps.Counters.Lookup(uint32(n), &perCPU); err != nil {
			return nil, fmt.Errorf("counter %q: %w", name, err)
		}
		var sum uint64
		for _, c := range perCPU {
			sum += c
		}
		counters[name] = sum
	}
	return counters, nil
}

// Status returns the state of the interface. It is ready when the hooks are
// attached and a live agent says that it works.
func (i *Interface) Status() (Status, error) {
	s := Status{
		Iface: i.name, Mode: TC, Clsact: i.info.Tc != bpfTcKindTcTcx, Driver: cString(i.info.Driver[:]),
		Netns: strconv.FormatUint(i.info.NetnsCookie, 10), Attached: time.Unix(0, int64(i.info.AttachedNs)).UTC(),
		Samples: int(i.info.Samples), VLAN: i.info.Vlan != 0,
		FlowsMax:   int(i.maps.Flows.MaxEntries() + i.maps.Flows6.MaxEntries()),
		PendingMax: int(i.maps.Pending.MaxEntries() + i.maps.Pending6.MaxEntries()),
	}
	if i.info.Mode == bpfAttachModeModeNative {
		s.Mode = Native
	}
	var err error
	if s.Hooks, err = i.Hooks(); err != nil {
		return s, err
	}
	if s.Counters, err = i.Counters(); err != nil {
		return s, err
	}
	entries, err := i.read()
	if err != nil {
		return s, err
	}
	for n := range entries {
		switch {
		case entries[n].decided:
			s.Flows++
		case entries[n].flow.State&bpfFlowStateStatePromoted == 0:
			s.Pending++
		}
	}
	if s.Ended, err = i.ends(); err != nil {
		return s, err
	}
	_, rules, err := i.Policy()
	if err != nil {
		return s, err
	}
	s.Rules = len(rules)
	if s.Agent, err = i.agent(); err != nil {
		return s, err
	}
	s.Ready = s.Agent != nil && s.Agent.Ready
	for _, h := range s.Hooks {
		s.Ready = s.Ready && h.State == "attached"
	}
	return s, nil
}

// agent returns what the live agent says, nil where none is alive.
func (i *Interface) agent() (*AgentStats, error) {
	if live, err := isLocked(i.dir); err != nil || !live {
		return nil, err
	}
	var raw bpfAgentStats
	if err := i.maps.Agent.Lookup(uint32(0), &raw); err != nil {
		return nil, fmt.Errorf("statistics of the agent: %w", err)
	}
	s := &AgentStats{
		PID: int(raw.Pid), Model: []string{}, Started: time.Unix(0, int64(raw.StartedNs)).UTC(), Updated: time.Unix(0, int64(raw.UpdatedNs)).UTC(),
		Samples: raw.Samples, Verdicts: raw.Verdicts, Shed: raw.Shed, Batches: raw.Batches,
		SamplesPerSecond: float64(raw.SamplesPerSecondMilli) / 1e3, VerdictsPerSecond: float64(raw.VerdictsPerSecondMilli) / 1e3,
		BatchMean: float64(raw.BatchMeanMilli) / 1e3, P50: time.Duration(raw.P50Ns), P99: time.Duration(raw.P99Ns),
		RingBytes: raw.RingBytes, RingUsed: raw.RingUsed, Classify: raw.Classify != 0, Ready: raw.Ready != 0,
		LastError: cString(raw.LastError[:]),
	}
	for n := range raw.Model {
		if name := cString(raw.Model[n][:]); name != "" {
			s.Model = append(s.Model, name)
		}
	}
	return s, nil
}

// PublishAgent stores the agent's statistics for Status. The ring's figures are
// added here.
func (i *Interface) PublishAgent(s AgentStats) error {
	i.ringMu.Lock()
	used, size := i.ringUsed, i.ringBytes
	i.ringMu.Unlock()
	if size == 0 {
		size = uint64(i.maps.Samples.MaxEntries())
	}
	raw := bpfAgentStats{
		StartedNs: uint64(s.Started.UnixNano()), UpdatedNs: uint64(s.Updated.UnixNano()),
		Samples: s.Samples, Verdicts: s.Verdicts, Shed: s.Shed, Batches: s.Batches,
		SamplesPerSecondMilli:  uint64(s.SamplesPerSecond * 1e3),
		VerdictsPerSecondMilli: uint64(s.VerdictsPerSecond * 1e3),
		BatchMeanMilli:         uint64(s.BatchMean * 1e3),
		P50Ns:                  uint64(s.P50), P99Ns: uint64(s.P99), RingBytes: size, RingUsed: used,
		Pid: uint32(s.PID), Classify: bit(s.Classify), Ready: bit(s.Ready),
	}
	for n, name := range s.Model[:min(len(s.Model), len(raw.Model))] {
		copy(raw.Model[n][:len(raw.Model[n])-1], name)
	}
	copy(raw.LastError[:len(raw.LastError)-1], s.LastError)
	if err := i.maps.Agent.Put(uint32(0), &raw); err != nil {
		return fmt.Errorf("publish the agent's statistics: %w", err)
	}
	return nil
}
