// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// The kernel's limits of a policy are those of package flow, or this does not compile.
var (
	_ = [1]struct{}{}[flow.MaxRules-bpfLimitMaxRules]
	_ = [1]struct{}{}[flow.MaxProtected-bpfLimitMaxProtected]
	_ = [1]struct{}{}[flow.MaxProtectedFlows-bpfLimitMaxProtectedFlows]
	_ = [1]struct{}{}[flow.MaxSource-bpfLimitMaxSource]
	_ = [1]struct{}{}[flow.MaxMatches-bpfLimitMaxMatches]
)

// Rules is the policy of one interface. Any number of goroutines and processes may use it
// at the same time: they set one policy after another.
type Rules struct {
	maps   *bpfMaps
	labels *nameTable
	dir    string // of the pins; "" if there are none
}

// RuleStats is what a rule has done since it was applied. Counts are packets and IP
// bytes on the wire.
type RuleStats struct {
	Packets      uint64 `json:"packets"`
	Bytes        uint64 `json:"bytes"`
	Dropped      uint64 `json:"dropped"`
	DroppedBytes uint64 `json:"dropped_bytes"`
	Marked       uint64 `json:"marked"`
}

// Set puts a whole policy in force, or nothing if there is an error: it writes the new
// policy next to the old one, into the other bank of each map, and switches over with one
// store. A label that the interface does not have is an error.
func (r *Rules) Set(p *flow.Policy) (err error) {
	rules, err := r.encode(p)
	if err != nil {
		return err
	}
	matches, err := compileMatches(p.Rules)
	if err != nil {
		return err
	}
	unlock, err := lockPolicies(r.dir, policyWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	state, err := r.state()
	if err != nil {
		return err
	}
	next := bpfPolicyState{
		Epoch: state.Epoch + 1, AppliedNs: uint64(time.Now().UnixNano()),
		SourceLen: uint32(len(p.Source)), Flags: policyFlags(p),
	}
	if next.Epoch == 0 {
		next.Epoch = 2
	}
	bank := next.Epoch & 1
	protected, err := compileProtected(bank, p)
	if err != nil {
		return err
	}
	next.Protects = protected.size()
	if state.Epoch != 0 {
		// A packet may still be reading this bank, from before the last switch.
		if err := waitForPackets(); err != nil {
			return err
		}
	}
	if err := r.writeRules(bank, rules); err != nil {
		return err
	}
	if err := r.writeMatches(bank, matches); err != nil {
		return err
	}
	if err := r.writeProtected(bank, protected); err != nil {
		return err
	}
	source := make([]byte, flow.MaxSource)
	copy(source, p.Source)
	if err := r.maps.PolicySource.Put(bank, source); err != nil {
		return fmt.Errorf("store the policy file: %w", err)
	}
	if err := r.maps.Policy.Put(uint32(0), &next); err != nil {
		return fmt.Errorf("put the policy in force: %w", err)
	}
	return nil
}

// encode returns the rules in the kernel's form, with the mark of the end.
func (r *Rules) encode(p *flow.Policy) ([]bpfRule, error) {
	if len(p.Rules) > flow.MaxRules {
		return nil, fmt.Errorf("%d rules: at most %d", len(p.Rules), flow.MaxRules)
	}
	if len(p.Source) > flow.MaxSource {
		return nil, fmt.Errorf("policy file of %d bytes: at most %d", len(p.Source), flow.MaxSource)
	}
	var rules []bpfRule
	for n := range p.Rules {
		rule, err := r.labels.encodeRule(&p.Rules[n])
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", n+1, err)
		}
		rules = append(rules, rule)
	}
	if len(rules) < flow.MaxRules {
		rules = append(rules, bpfRule{Flags: bpfRuleFlagRuleEnd})
	}
	return rules, nil
}

// state returns what is in force.
func (r *Rules) state() (state bpfPolicyState, err error) {
	if err := r.maps.Policy.Lookup(uint32(0), &state); err != nil {
		return state, fmt.Errorf("policy in force: %w", err)
	}
	return state, nil
}

// policyFlags returns what the kernel has to know about a policy as a whole.
func policyFlags(p *flow.Policy) (flags bpfPolicyFlag) {
	for n := range p.Rules {
		if action := &p.Rules[n].Action; action.Drop || action.Rate > 0 {
			flags |= bpfPolicyFlagPolicyDrops
		}
	}
	if p.DropUnparsed {
		flags |= bpfPolicyFlagPolicyDropsUnparsed
	}
	return flags
}

// Clear removes the policy: everything passes.
func (r *Rules) Clear() error { return r.Set(&flow.Policy{}) }

// writeRules writes the rules into a bank that is not in force, and clears their counters.
func (r *Rules) writeRules(bank uint32, rules []bpfRule) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("number of CPUs: %w", err)
	}
	zero := make([]bpfRuleCounts, cpus)
	for n := range rules {
		index := bank*flow.MaxRules + uint32(n)
		if err := r.maps.Rules.Put(index, &rules[n]); err != nil {
			return fmt.Errorf("store rule %d: %w", n+1, err)
		}
		if err := r.maps.RuleStats.Put(index, zero); err != nil {
			return fmt.Errorf("clear the counters of rule %d: %w", n+1, err)
		}
		for direction := range uint32(2) {
			if err := r.maps.Buckets.Put(2*index+direction, uint64(0)); err != nil {
				return fmt.Errorf("clear the bucket of rule %d: %w", n+1, err)
			}
		}
	}
	return nil
}

// maxReads bounds how often Policy reads again because a policy was applied meanwhile.
const maxReads = 100

// Policy returns the policy in force as it was applied, without its rules (nil if there is
// none), and what each rule has done. All of it is of one policy.
func (r *Rules) Policy() (*flow.Policy, []RuleStats, error) {
	for range maxReads {
		before, err := r.state()
		if err != nil {
			return nil, nil, err
		}
		p, stats, err := r.read(before)
		if errors.Is(err, errPartly) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		// As long as a policy is in force, its bank does not change.
		after, err := r.state()
		if err != nil {
			return nil, nil, err
		}
		if after == before {
			return p, stats, nil
		}
	}
	return nil, nil, errors.New("the policy changes faster than it can be read")
}

// read reads what is in force.
func (r *Rules) read(state bpfPolicyState) (*flow.Policy, []RuleStats, error) {
	bank := state.Epoch & 1
	var stats []RuleStats
	for n := range uint32(flow.MaxRules) {
		index := bank*flow.MaxRules + n
		var rule bpfRule
		if err := r.maps.Rules.Lookup(index, &rule); err != nil {
			return nil, nil, fmt.Errorf("rule %d: %w", n+1, err)
		}
		if rule.Flags&bpfRuleFlagRuleEnd != 0 {
			break
		}
		var perCPU []bpfRuleCounts
		if err := r.maps.RuleStats.Lookup(index, &perCPU); err != nil {
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
	source := make([]byte, flow.MaxSource)
	if err := r.maps.PolicySource.Lookup(bank, &source); err != nil {
		return nil, nil, fmt.Errorf("policy file: %w", err)
	}
	p := &flow.Policy{
		Source:  source[:min(int(state.SourceLen), flow.MaxSource)],
		Applied: time.Unix(0, int64(state.AppliedNs)).UTC(),
	}
	return p, stats, r.readProtected(&state, p)
}

// labelSet is a bit set of labels.
type labelSet = [maxLabels / 64]uint64

// encodeRule returns the kernel's form of a rule, without its names, hosts and ports.
func (t *nameTable) encodeRule(r *flow.Rule) (bpfRule, error) {
	out := bpfRule{MinConfidence: encodeConfidence(r.MinConfidence)}
	set := func(bits *labelSet, names []string) error {
		for _, name := range names {
			label, err := t.label(name)
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
	out.Flags |= matchFlags(r)
	for _, p := range r.Protocols {
		out.Protocols[p>>6&1] |= 1 << (p & 63)
	}
	for _, s := range r.Sources {
		out.Sources |= 1 << s
	}
	if r.Provisional {
		out.Flags |= bpfRuleFlagRuleProvisional
	}
	if r.Midstream {
		out.Flags |= bpfRuleFlagRuleMidstream
	}
	if r.OneSided {
		out.Flags |= bpfRuleFlagRuleOneSided
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
