// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// maxSource is the size of the map with the policy file.
const maxSource = int(bpfLimitMaxSource)

// A policy has as many rules as the kernel has room for: a difference does not compile.
var _ = [1]struct{}{}[flow.MaxRules-bpfLimitMaxRules]

// RuleStats is what a rule did since it was applied. Counts are packets and IP
// bytes on the wire.
type RuleStats struct {
	Packets      uint64 `json:"packets"`
	Bytes        uint64 `json:"bytes"`
	Dropped      uint64 `json:"dropped"`
	DroppedBytes uint64 `json:"dropped_bytes"`
	Marked       uint64 `json:"marked"`
}

// encodeRule makes the kernel's form of a rule.
func (i *Interface) encodeRule(r *flow.Rule) (bpfRule, error) {
	out := bpfRule{MinConfidence: encodeConfidence(r.MinConfidence)}
	set := func(bits *[4]uint64, names []string) error {
		for _, name := range names {
			label, err := i.names.label(name)
			if err != nil {
				return err
			}
			bits[label>>6] |= 1 << (label & 63)
		}
		return nil
	}
	if r.Categories == nil {
		out.Flags |= bpfRuleFlagRuleAnyCategory
	} else if err := set(&out.Categories, r.Categories); err != nil {
		return out, err
	}
	if r.Apps == nil {
		out.Flags |= bpfRuleFlagRuleAnyApp
	} else if err := set(&out.Apps, r.Apps); err != nil {
		return out, err
	}
	if r.Provisional {
		out.Flags |= bpfRuleFlagRuleProvisional
	}
	if r.Midstream {
		out.Flags |= bpfRuleFlagRuleMidstream
	}
	if r.Action.Drop {
		out.Actions |= bpfRuleActionActionDrop
	}
	if r.Action.Rate > 0 {
		out.Actions |= bpfRuleActionActionPolice
		nanosPerByte := 8e9 / float64(r.Action.Rate)
		out.Cost = uint64(math.Max(math.Round(nanosPerByte*65536), 1))
		out.BurstNs = uint64(float64(r.Action.Burst) * nanosPerByte)
		if r.Action.Scope == flow.ScopeFlow {
			out.Actions |= bpfRuleActionActionPerFlow
		}
	}
	if r.Action.DSCP >= 0 && !r.Action.Drop {
		if r.Action.DSCP > 63 {
			return out, fmt.Errorf("DSCP %d: want 0 to 63", r.Action.DSCP)
		}
		out.Actions |= bpfRuleActionActionDscp
		out.Dscp = uint8(r.Action.DSCP)
	}
	return out, nil
}

// SetPolicy puts a policy in force, whole or not at all: its rules are written
// beside the old ones, and one store changes over.
func (i *Interface) SetPolicy(p *flow.Policy) error {
	if len(p.Rules) > flow.MaxRules {
		return fmt.Errorf("%d rules: at most %d", len(p.Rules), flow.MaxRules)
	}
	if len(p.Source) > maxSource {
		return fmt.Errorf("policy file of %d bytes: at most %d", len(p.Source), maxSource)
	}
	rules := make([]bpfRule, flow.MaxRules)
	for n := range rules {
		if n >= len(p.Rules) {
			rules[n].Flags = bpfRuleFlagRuleEnd
			continue
		}
		rule, err := i.encodeRule(&p.Rules[n])
		if err != nil {
			return fmt.Errorf("rule %d: %w", n+1, err)
		}
		rules[n] = rule
	}
	var state bpfPolicyState
	if err := i.maps.Policy.Lookup(uint32(0), &state); err != nil {
		return fmt.Errorf("policy in force: %w", err)
	}
	next := bpfPolicyState{
		Epoch: state.Epoch + 1, AppliedNs: uint64(time.Now().UnixNano()),
		SourceLen: uint32(len(p.Source)),
	}
	if next.Epoch == 0 {
		next.Epoch = 2
	}
	if err := i.writeBank(next.Epoch&1, rules); err != nil {
		return err
	}
	stale, err := i.protect(p)
	if err != nil {
		return err
	}
	source := make([]byte, maxSource)
	copy(source, p.Source)
	if err := i.maps.PolicySource.Put(uint32(0), source); err != nil {
		return fmt.Errorf("store the policy file: %w", err)
	}
	if err := i.maps.Policy.Put(uint32(0), &next); err != nil {
		return fmt.Errorf("put the policy in force: %w", err)
	}
	return stale()
}

// writeBank writes the rules that are not in force, and clears what they count.
func (i *Interface) writeBank(bank uint32, rules []bpfRule) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("number of CPUs: %w", err)
	}
	zero := make([]bpfRuleCounts, cpus)
	for n := range rules {
		index := bank*flow.MaxRules + uint32(n)
		if err := i.maps.Rules.Put(index, &rules[n]); err != nil {
			return fmt.Errorf("store rule %d: %w", n+1, err)
		}
		if err := i.maps.RuleStats.Put(index, zero); err != nil {
			return fmt.Errorf("clear the counters of rule %d: %w", n+1, err)
		}
		for direction := range uint32(2) {
			if err := i.maps.Buckets.Put(2*index+direction, uint64(0)); err != nil {
				return fmt.Errorf("clear the bucket of rule %d: %w", n+1, err)
			}
		}
	}
	return nil
}

// protect adds what the policy protects; the function that it returns takes out what
// only the policy before protected. Between the two both are protected.
func (i *Interface) protect(p *flow.Policy) (stale func() error, err error) {
	one := uint8(1)
	prefixes, prefixes6 := map[bpfLpm4]bool{}, map[bpfLpm6]bool{}
	for _, prefix := range p.Prefixes {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()).Masked()
		if prefix.Addr().Is4() {
			key := bpfLpm4{PrefixLen: uint32(prefix.Bits()), Addr: prefix.Addr().As4()}
			prefixes[key], err = true, i.maps.Protect.Put(&key, one)
		} else {
			key := bpfLpm6{PrefixLen: uint32(prefix.Bits()), Addr: prefix.Addr().As16()}
			prefixes6[key], err = true, i.maps.Protect6.Put(&key, one)
		}
		if err != nil {
			return nil, fmt.Errorf("protect %v: %w", prefix, err)
		}
	}
	ports, flows := map[bpfProtectPort]bool{}, map[bpfFlowKey6]bool{}
	for _, protected := range p.Ports {
		key := bpfProtectPort{Port: port(protected.Port), Proto: uint8(protected.Proto)}
		ports[key] = true
		if err := i.maps.ProtectPorts.Put(&key, one); err != nil {
			return nil, fmt.Errorf("protect %v/%d: %w", protected.Proto, protected.Port, err)
		}
	}
	for _, protected := range p.Flows {
		protected.VLAN = 0
		key, _ := wideKey(protected)
		flows[key] = true
		if err := i.maps.ProtectFlows.Put(&key, one); err != nil {
			return nil, fmt.Errorf("protect flow %q: %w", protected, err)
		}
	}
	return func() error {
		return errors.Join(
			keepOnly(i.maps.Protect, prefixes), keepOnly(i.maps.Protect6, prefixes6),
			keepOnly(i.maps.ProtectPorts, ports), keepOnly(i.maps.ProtectFlows, flows))
	}, nil
}

func keepOnly[K comparable](m *ebpf.Map, keep map[K]bool) error {
	var key K
	var value uint8
	var drop []K
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if !keep[key] {
			drop = append(drop, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read map %v: %w", m, err)
	}
	for n := range drop {
		if err := m.Delete(&drop[n]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("take out of map %v: %w", m, err)
		}
	}
	return nil
}

// ClearPolicy takes the policy off: everything passes.
func (i *Interface) ClearPolicy() error { return i.clearPolicy() }

func (i *Interface) clearPolicy() error { return i.SetPolicy(&flow.Policy{}) }

// Policy returns the policy in force as it was applied (Source and Applied; nil
// where there is none) and what each rule did.
func (i *Interface) Policy() (*flow.Policy, []RuleStats, error) {
	var state bpfPolicyState
	if err := i.maps.Policy.Lookup(uint32(0), &state); err != nil {
		return nil, nil, fmt.Errorf("policy in force: %w", err)
	}
	var stats []RuleStats
	for n := range uint32(flow.MaxRules) {
		index := (state.Epoch&1)*flow.MaxRules + n
		var rule bpfRule
		if err := i.maps.Rules.Lookup(index, &rule); err != nil {
			return nil, nil, fmt.Errorf("rule %d: %w", n+1, err)
		}
		if rule.Flags&bpfRuleFlagRuleEnd != 0 {
			break
		}
		var perCPU []bpfRuleCounts
		if err := i.maps.RuleStats.Lookup(index, &perCPU); err != nil {
			return nil, nil, fmt.Errorf("counters of rule %d: %w", n+1, err)
		}
		var sum RuleStats
		for _, c := range perCPU {
			sum.Packets += c.Packets
			sum.Bytes += c.Bytes
			sum.Dropped += c.Dropped
			sum.DroppedBytes += c.DroppedBytes
			sum.Marked += c.Marked
		}
		stats = append(stats, sum)
	}
	if state.SourceLen == 0 && len(stats) == 0 {
		return nil, nil, nil
	}
	source := make([]byte, maxSource)
	if err := i.maps.PolicySource.Lookup(uint32(0), &source); err != nil {
		return nil, nil, fmt.Errorf("policy file: %w", err)
	}
	return &flow.Policy{
		Source: source[:min(int(state.SourceLen), maxSource)], Applied: time.Unix(0, int64(state.AppliedNs)).UTC(),
	}, stats, nil
}
