// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"strconv"
	"time"
)

// Status is the state of an attached interface.
type Status struct {
	Iface      string            `json:"iface"`
	Mode       Mode              `json:"mode"`
	Clsact     bool              `json:"clsact"` // tc filters instead of tcx
	Driver     string            `json:"driver"`
	Loopback   bool              `json:"loopback"` // what the interface sends, it also receives; one hook sees it all
	Netns      string            `json:"netns"`    // cookie
	Attached   time.Time         `json:"attached"`
	Hooks      []Hook            `json:"hooks"`
	Counters   map[string]uint64 `json:"counters"` // by reason
	Flows      int               `json:"flows"`    // decided, IPv4 and IPv6
	FlowsMax   int               `json:"flows_max"`
	FastPath   bool              `json:"fast_path"`
	Fast       int               `json:"fast"`       // decided flows whose packets take the fast path
	FlowBytes  int               `json:"flow_bytes"` // kernel memory of a decided flow of IPv4
	Memory     uint64            `json:"memory"`     // of the interface's maps in the kernel; 0: unknown
	Pending    int               `json:"pending"`
	PendingMax int               `json:"pending_max"`
	Ended      uint64            `json:"ended"`
	Evicted    uint64            `json:"evicted"` // undecided flows that left a full table, without a record
	Samples    int               `json:"samples"` // budget of a flow
	VLAN       bool              `json:"vlan"`
	Rules      int               `json:"rules"` // of the policy in force
	Agent      *AgentStats       `json:"agent"` // nil: none is alive
	Ready      bool              `json:"ready"`
	State      string            `json:"state"` // StateReady, or why it is not ready
}

// States of an interface.
const (
	StateReady     = "ready"
	StateAttaching = "attaching" // the agent has begun to attach it, or takes it over
	StateHook      = "hook"      // a program is not attached
	StateAgent     = "no agent"
	StateHung      = "hung"    // the agent has not reported for five seconds: it hangs or was stopped
	StateFailing   = "failing" // the agent cannot do its work on the interface: see its LastError
	StateEnding    = "ending"  // the agent is about to let go of the interface
)

// state returns the state of an interface with these hooks and agent.
func (s *Status) state(now time.Time) string {
	a := s.Agent
	switch {
	case a == nil:
		return StateAgent
	case a.isHung(now):
		return StateHung
	case a.Ending:
		return StateEnding
	case !a.Ready && a.LastError != "":
		return StateFailing
	case !a.Ready:
		return StateAttaching
	}
	for _, h := range s.Hooks {
		if h.State != HookAttached {
			return StateHook
		}
	}
	return StateReady
}

// Status returns the state of the interface. It is ready if the hooks are attached and
// a live agent has reported within the last five seconds that it is ready.
func (p *Pins) Status() (Status, error) {
	s := Status{
		Iface: p.name, Mode: TC, Clsact: p.info.Tc != bpfTcKindTcTcx, Driver: cString(p.info.Driver[:]),
		Loopback: p.info.Loopback != 0, Netns: strconv.FormatUint(p.info.NetnsCookie, 10), Attached: time.Unix(0, int64(p.info.AttachedNs)).UTC(),
		FastPath: p.info.Fast != 0, Memory: p.memory(),
		Samples: int(p.info.Samples), VLAN: p.info.Vlan != 0,
		FlowsMax:   int(p.maps.Flows.MaxEntries() + p.maps.Flows6.MaxEntries()),
		PendingMax: int(p.maps.Pending.MaxEntries() + p.maps.Pending6.MaxEntries()),
	}
	if p.info.Mode == bpfAttachModeModeNative {
		s.Mode = Native
	}
	s.FlowBytes, _ = FlowBytes(s.FastPath)
	var err error
	// First: an agent that is ready has its hooks already.
	if s.Agent, err = p.Agent(); err != nil {
		return s, err
	}
	if s.Hooks, err = p.Hooks(); err != nil {
		return s, err
	}
	if s.Counters, err = p.Counters(); err != nil {
		return s, err
	}
	born, err := p.table.born()
	if err != nil {
		return s, err
	}
	entries, err := p.table.read()
	if err != nil {
		return s, err
	}
	for n := range entries {
		switch {
		case entries[n].decided:
			s.Flows++
			s.Fast += int(bit(entries[n].flow.Line != 0))
		case entries[n].flow.State&bpfFlowStateStatePromoted == 0:
			s.Pending++
		}
	}
	if s.Ended, err = p.table.ends(); err != nil {
		return s, err
	}
	if s.Evicted, err = p.table.evicted(born, entries); err != nil {
		return s, err
	}
	_, rules, err := p.rules.Policy()
	if err != nil {
		return s, err
	}
	s.Rules = len(rules)
	s.State = s.state(time.Now())
	s.Ready = s.State == StateReady
	return s, nil
}
