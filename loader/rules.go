// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
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

// ErrUnconfirmed is wrapped by the error of Set while a policy waits for Confirm.
var ErrUnconfirmed = errors.New("the policy in force waits to be confirmed")

// Set puts a whole policy in force, or nothing if there is an error: it writes the new
// policy next to the old one, into the other bank of each map, and switches over with one
// store. A label that the interface does not have is an error. Rules that were in the policy
// before keep their counters and token buckets.
func (r *Rules) Set(p *flow.Policy) error { return r.set(p, setting{}) }

// Replace is Set, but it also replaces a policy that waits to be confirmed. If the new policy
// has an error, the other one still waits.
func (r *Rules) Replace(p *flow.Policy) error { return r.set(p, setting{force: true}) }

// Renew sets the policy with that [Report.Number] again, so that the kernel knows its schedule
// further ahead. It keeps the time at which the policy was applied. If another policy is in
// force by now, it does nothing.
func (r *Rules) Renew(p *flow.Policy, number uint32) error {
	return r.set(p, setting{renewed: number})
}

// Try is Set, but the kernel puts the policy before in force again after the wait, at least a
// second, unless Confirm is called before. It needs no process for that.
func (r *Rules) Try(p *flow.Policy, wait time.Duration) error {
	return r.set(p, setting{wait: max(wait, time.Second)})
}

// epochStep is more than a schedule adds to the epoch while a policy is being set. It is odd,
// because the new policy goes into the other bank.
const epochStep = 1025

// setting says how a policy is set.
type setting struct {
	wait    time.Duration // after which it is taken back; 0: it is not
	force   bool          // whether the policy in force may wait to be confirmed
	renewed uint32        // number of the policy that this is, see Renew; 0: a new one
}

func (r *Rules) set(p *flow.Policy, how setting) (err error) {
	rules, err := r.encode(p)
	if err != nil {
		return err
	}
	matches, err := compileMatches(p.Rules)
	if err != nil {
		return err
	}
	// Whatever is wrong with the policy has to show before the wait for a confirmation ends.
	if _, err := compileProtected(0, p); err != nil {
		return err
	}
	moments := momentsOf(p, time.Now())
	unlock, err := lockPolicies(r.dir, policyWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	state, err := r.state()
	if err != nil || how.renewed != 0 && state.First != how.renewed {
		return err
	}
	if err := r.endWait(how.force); err != nil {
		return err
	}
	if state, err = r.state(); err != nil {
		return err
	}
	if state.Epoch != 0 {
		// A packet may still be reading this bank, from before the last switch.
		if err := waitForPackets(); err != nil {
			return err
		}
		if state, err = r.state(); err != nil {
			return err
		}
	}
	next := bpfPolicyState{
		Epoch: state.Epoch + epochStep, AppliedNs: uint64(time.Now().UnixNano()),
		SourceLen: uint32(len(p.Source)), Flags: policyFlags(p), Former: state.First,
	}
	if next.Epoch < epochStep { // it went round
		next.Epoch += 2
	}
	next.First = next.Epoch
	if how.renewed != 0 {
		next.AppliedNs = state.AppliedNs
	}
	bank := next.Epoch & 1
	protected, err := compileProtected(bank, p)
	if err != nil {
		return err
	}
	next.Protects = protected.size()
	former, err := r.bank(state.Epoch & 1)
	if err != nil {
		return err
	}
	if err := r.writeRules(bank, rules, assignSlots(rules, former, next.Epoch)); err != nil {
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
	if err := r.writeMoments(bank, moments); err != nil {
		return err
	}
	if how.wait > 0 {
		if err := r.maps.Policy.Put(uint32(1), &state); err != nil {
			return fmt.Errorf("keep the policy before: %w", err)
		}
	}
	if how.wait == 0 && len(moments) == 0 {
		return r.putInForce(&next)
	}
	// A clock that does not start must not leave a policy that nothing takes back.
	return r.withClock(func(clock *policyClock) error {
		if how.wait > 0 { // it begins now: the program took a while to load
			boot, err := bootTime()
			if err != nil {
				return err
			}
			next.ConfirmNs = boot + uint64(how.wait)
		}
		if err := r.putInForce(&next); err != nil {
			return err
		}
		return clock.start(bpfClockKindClockStart)
	})
}

func (r *Rules) putInForce(next *bpfPolicyState) error {
	if err := r.maps.Policy.Put(uint32(0), next); err != nil {
		return fmt.Errorf("put the policy in force: %w", err)
	}
	return nil
}

// bank returns the rules in a bank.
func (r *Rules) bank(bank uint32) (rules []bpfRule, err error) {
	for n := range uint32(flow.MaxRules) {
		var rule bpfRule
		if err := r.maps.Rules.Lookup(bank*flow.MaxRules+n, &rule); err != nil {
			return nil, fmt.Errorf("rule %d: %w", n+1, err)
		}
		if rule.Flags&bpfRuleFlagRuleEnd != 0 {
			break
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// assignSlots gives rules that are in the former policy too its slot and id, and the others
// free ones. It returns the slots to clear.
func assignSlots(rules, former []bpfRule, epoch uint32) (clear []uint32) {
	used := map[uint8]bool{}
	for n := range former {
		used[former[n].Slot] = true
	}
	taken := make([]bool, len(former))
	for n := range rules {
		if rules[n].Flags&bpfRuleFlagRuleEnd != 0 {
			continue
		}
		same := slices.IndexFunc(former, func(f bpfRule) bool { return f.Identity == rules[n].Identity })
		for same >= 0 && taken[same] {
			next := slices.IndexFunc(former[same+1:], func(f bpfRule) bool { return f.Identity == rules[n].Identity })
			if next < 0 {
				same = -1
				break
			}
			same += 1 + next
		}
		if same >= 0 {
			taken[same] = true
			rules[n].Slot, rules[n].Id, rules[n].Was = former[same].Slot, former[same].Id, uint8(same+1)
			continue
		}
		var slot uint8
		for used[slot] {
			slot++
		}
		used[slot] = true
		// Policies are further apart than the rules of one.
		rules[n].Slot, rules[n].Id = slot, epoch+uint32(n)
		clear = append(clear, uint32(slot))
	}
	return clear
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
		if p.DryRun {
			rule.Actions |= bpfRuleActionActionDry | bpfRuleActionActionSpecial
		}
		if rule.Identity, err = identityOf(&p.Rules[n], p.DryRun); err != nil {
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

// identityOf returns a hash of what a rule says.
func identityOf(r *flow.Rule, dryRun bool) (id [2]uint64, err error) {
	text, err := json.Marshal(struct {
		Rule   *flow.Rule
		DryRun bool
	}{r, dryRun})
	if err != nil {
		return id, err
	}
	sum := sha256.Sum256(text)
	return [2]uint64{binary.NativeEndian.Uint64(sum[:8]), binary.NativeEndian.Uint64(sum[8:16])}, nil
}

// policyFlags returns what the kernel has to know about a policy as a whole.
func policyFlags(p *flow.Policy) (flags bpfPolicyFlag) {
	if p.DryRun {
		return bpfPolicyFlagPolicyDryRun
	}
	for n := range p.Rules {
		if action := &p.Rules[n].Action; action.Drop || action.Rate > 0 || action.Quota > 0 {
			flags |= bpfPolicyFlagPolicyDrops
		}
	}
	if p.DropUnparsed {
		flags |= bpfPolicyFlagPolicyDropsUnparsed
	}
	return flags
}

// Clear removes the policy: everything passes. It also ends the wait for a confirmation.
func (r *Rules) Clear() error { return r.Replace(&flow.Policy{}) }

// writeRules writes the rules into a bank that is not in force, and clears the counters and
// buckets of some slots.
func (r *Rules) writeRules(bank uint32, rules []bpfRule, clear []uint32) error {
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
	}
	for _, slot := range clear {
		if err := r.maps.RuleStats.Put(slot, zero); err != nil {
			return fmt.Errorf("clear the counters of a rule: %w", err)
		}
		for direction := range uint32(2) {
			if err := r.maps.Buckets.Put(2*slot+direction, &bpfBucket{}); err != nil {
				return fmt.Errorf("clear the bucket of a rule: %w", err)
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
	report, err := r.Report()
	if err != nil || report == nil {
		return nil, nil, err
	}
	stats := make([]RuleStats, len(report.Rules))
	for n := range report.Rules {
		stats[n] = report.Rules[n].RuleStats
	}
	return report.Policy, stats, nil
}

// Report is the policy in force and what it does.
type Report struct {
	Policy    *flow.Policy // without its rules
	Number    uint32       // of this policy: each one that is set has another number
	Rules     []RuleReport
	ConfirmBy time.Time    // when the policy before comes in force again; zero: never
	Former    *flow.Policy // that one, without its rules; nil: no policy
}

// RuleReport is what a rule has done and whether its schedule is active.
type RuleReport struct {
	RuleStats
	Categories map[string]uint64 // packets by the category of their flow; "" while it was undecided
	DSCPs      map[int]uint64    // packets by the DSCP with which they went on, of a rule that sets one
	Rests      bool              // by its schedule, the rule does not act now
}

// OtherCategories is the key of Categories for labels that are a model's own.
const OtherCategories = "other"

// Report returns the policy in force, nil if there is none. All of it is of one policy.
func (r *Rules) Report() (*Report, error) {
	for range maxReads {
		before, err := r.state()
		if err != nil {
			return nil, err
		}
		report, err := r.read(before)
		if errors.Is(err, errPartly) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// As long as a policy is in force, its bank does not change.
		after, err := r.state()
		if err != nil {
			return nil, err
		}
		if after == before {
			return report, nil
		}
	}
	return nil, errors.New("the policy changes faster than it can be read")
}

// read reads what is in force.
func (r *Rules) read(state bpfPolicyState) (*Report, error) {
	bank := state.Epoch & 1
	rules, err := r.bank(bank)
	if err != nil {
		return nil, err
	}
	var active bpfActive
	if err := r.maps.ActiveRules.Lookup(bank, &active); err != nil {
		return nil, fmt.Errorf("schedules: %w", err)
	}
	report := &Report{Number: state.First}
	for n := range rules {
		counts, err := r.counts(&rules[n])
		if err != nil {
			return nil, fmt.Errorf("counters of rule %d: %w", n+1, err)
		}
		counts.Rests = active.Inactive>>n&1 != 0
		report.Rules = append(report.Rules, counts)
	}
	if state.SourceLen == 0 && len(rules) == 0 {
		return nil, nil
	}
	if report.Policy, err = r.text(&state); err != nil {
		return nil, err
	}
	if state.ConfirmNs != 0 {
		boot, err := bootTime()
		if err != nil {
			return nil, err
		}
		report.ConfirmBy = time.Now().Add(time.Duration(state.ConfirmNs - boot)).Round(time.Second)
		var former bpfPolicyState
		if err := r.maps.Policy.Lookup(uint32(1), &former); err != nil {
			return nil, fmt.Errorf("policy before: %w", err)
		}
		if former.SourceLen > 0 {
			if report.Former, err = r.text(&former); err != nil {
				return nil, err
			}
		}
	}
	return report, nil
}

// text returns a policy as it was applied, without its rules.
func (r *Rules) text(state *bpfPolicyState) (*flow.Policy, error) {
	source := make([]byte, flow.MaxSource)
	if err := r.maps.PolicySource.Lookup(state.Epoch&1, &source); err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	p := &flow.Policy{
		Source:  source[:min(int(state.SourceLen), flow.MaxSource)],
		Applied: time.Unix(0, int64(state.AppliedNs)).UTC(),
		DryRun:  state.Flags&bpfPolicyFlagPolicyDryRun != 0,
	}
	return p, r.readProtected(state, p)
}

// counts returns what a rule has done.
func (r *Rules) counts(rule *bpfRule) (out RuleReport, err error) {
	var perCPU []bpfRuleCounts
	if err := r.maps.RuleStats.Lookup(uint32(rule.Slot), &perCPU); err != nil {
		return out, err
	}
	out.Categories, out.DSCPs = map[string]uint64{}, map[int]uint64{}
	for n := range perCPU {
		c := &perCPU[n]
		out.Packets += c.Packets
		out.Bytes += c.Bytes
		out.Dropped += c.Dropped
		out.DroppedBytes += c.DroppedBytes
		out.Marked += c.Marked
		for label, packets := range c.Categories {
			switch {
			case packets == 0:
			case label == len(c.Categories)-1:
				out.Categories[OtherCategories] += packets
			default:
				out.Categories[r.labels.name(uint16(label))] += packets
			}
		}
		for dscp, packets := range c.Dscps {
			if packets > 0 {
				out.DSCPs[dscp] += packets
			}
		}
	}
	return out, nil
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
	a := &r.Action
	actions, err := encodeActions(a.Drop, a.Rate, a.DSCP)
	if err != nil {
		return out, err
	}
	out.Actions = actions
	if a.Rate > 0 {
		out.Cost, out.BurstNs = encodeRate(a.Rate, a.Burst)
		switch a.Scope {
		case flow.ScopeFlow:
			out.Actions |= bpfRuleActionActionPerFlow
		case flow.ScopeHost:
			out.Terms |= bpfRuleTermTermPerHost
		case flow.ScopeFair:
			out.Terms |= bpfRuleTermTermFair
		case flow.ScopeClass:
		}
	}
	if out.Actions&bpfRuleActionActionDscp != 0 {
		out.Dscp = uint8(a.DSCP)
		if a.KeepMarked {
			out.Actions |= bpfRuleActionActionKeep
		}
	}
	if a.Quota > 0 {
		if out.OverActions, err = encodeActions(a.Over.Drop, a.Over.Rate, a.Over.DSCP); err != nil {
			return out, fmt.Errorf("beyond the quota: %w", err)
		}
		out.Terms |= bpfRuleTermTermQuota
		out.Quota = a.Quota
		if out.OverActions&bpfRuleActionActionDscp != 0 {
			out.OverDscp = uint8(a.Over.DSCP)
		}
		if a.Over.Rate > 0 {
			out.OverCost, out.OverBurstNs = encodeRate(a.Over.Rate, a.Over.Burst)
		}
	}
	if a.Mark != 0 {
		out.Terms |= bpfRuleTermTermMark
		out.Mark = a.Mark
	}
	if a.ClassID != 0 {
		out.Terms |= bpfRuleTermTermClassid
		out.Classid = a.ClassID
	}
	if a.Near {
		out.Terms |= bpfRuleTermTermNear
	}
	out.HostMask = hostMask(a.Prefix6)
	if out.Terms&^bpfRuleTermTermNear != 0 {
		out.Actions |= bpfRuleActionActionSpecial
	}
	return out, nil
}

// encodeActions returns the bits of a drop, a rate and a DSCP.
func encodeActions(drop bool, rate uint64, dscp int) (actions bpfRuleAction, err error) {
	if drop {
		return bpfRuleActionActionDrop, nil
	}
	if rate > 0 {
		actions |= bpfRuleActionActionPolice
	}
	if dscp > 63 {
		return 0, fmt.Errorf("DSCP %d: want 0 to 63", dscp)
	}
	if dscp >= 0 {
		actions |= bpfRuleActionActionDscp
	}
	return actions, nil
}

// encodeRate returns a policer's cost and burst. The rate is in bits per second, the burst in
// bytes.
func encodeRate(rate, burst uint64) (cost, burstNs uint64) {
	nanosPerByte := 8e9 / float64(rate)
	return uint64(math.Max(math.Round(nanosPerByte*65536), 1)), uint64(float64(burst) * nanosPerByte)
}

// hostMask returns the first bits of an IPv6 address, as two words in memory.
func hostMask(bits int) (mask [2]uint64) {
	if bits == 0 {
		bits = 128
	}
	whole := net.CIDRMask(bits, 128)
	return [2]uint64{binary.NativeEndian.Uint64(whole[:8]), binary.NativeEndian.Uint64(whole[8:])}
}
