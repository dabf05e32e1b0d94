// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// packettestDSCP is the DSCP of packettest's packets.
const packettestDSCP = 10

// passes returns how many of n packets of 1000 bytes pass.
func (k *kernel) passes(program string, c conn, n int) (passes int) {
	k.t.Helper()
	frame := c.sent(0, 972)
	if c.client.Addr().Is6() {
		frame = c.sent(0, 952)
	}
	for range n {
		if verdict, _ := k.run(program, frame); verdict == passed(program) {
			passes++
		}
	}
	return passes
}

// hostOf returns a UDP flow of a far host of its own, for received packets.
func hostOf(n int) conn { return udp(n << 14) }

func (k *kernel) report() *Report {
	k.t.Helper()
	report, err := k.rules.Report()
	if err != nil || report == nil {
		k.t.Fatalf("no policy: %v", err)
	}
	return report
}

// TestUnchangedRulesGoOn: rules that are in the next policy too keep counters and buckets, by whatever number.
func TestUnchangedRulesGoOn(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	perClass := flow.Rule{Categories: []string{"streaming"}, Action: policing(100, flow.ScopeClass)}
	perFlow := flow.Rule{Categories: []string{"voip"}, Action: policing(100, flow.ScopeFlow)}
	perHost := flow.Rule{Categories: []string{"chat"}, Action: policing(100, flow.ScopeHost)}
	other := flow.Rule{Categories: []string{"email"}, Action: passing}
	faster := perClass
	faster.Action.Rate *= 2
	flows := []conn{k.begun(udp(1), "streaming", 1, true), k.begun(udp(2), "voip", 1, true), k.begun(udp(3), "chat", 1, true)}
	want := []int{6, 6, 6}
	for round, rules := range [][]flow.Rule{
		{perClass, perFlow, perHost}, {other, perHost, perFlow, perClass}, {perClass, perFlow, perHost},
		{other, other, perClass, perFlow, perHost},
	} {
		k.policy(rules...)
		for n, c := range flows {
			if got := k.passes(progIn, c, 10); got != want[n] {
				t.Errorf("policy %d, flow %d: %d packets passed, want %d", round, n, got, want[n])
			}
			want[n] = 0
		}
		for n, rule := range k.report().Rules {
			packets := uint64(10 * (round + 1))
			if rules[n].Action == passing {
				packets = 0
			}
			if rule.Packets != packets {
				t.Errorf("policy %d, rule %d: %d packets, want %d", round, n+1, rule.Packets, packets)
			}
		}
	}
	k.policy(faster)
	if got := k.passes(progIn, flows[0], 10); got != 6 {
		t.Errorf("a changed rule passed %d packets, want 6", got)
	}
	if rule := k.report().Rules[0]; rule.Packets != 10 {
		t.Errorf("a changed rule has counted %d packets, want 10", rule.Packets)
	}
}

// TestDryRun: everything is counted, nothing is done.
func TestDryRun(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	rules := []flow.Rule{
		{Categories: []string{"torrent"}, Action: dropping},
		{Categories: []string{"streaming"}, Action: policing(100, flow.ScopeClass)},
		{Categories: []string{"voip"}, Action: marking(46)},
		{Categories: []string{"chat"}, Action: flow.Action{DSCP: -1, Quota: 5000, Over: flow.Over{Drop: true, DSCP: -1}}},
	}
	if err := k.rules.Set(&flow.Policy{Rules: rules, DryRun: true, DropUnparsed: true}); err != nil {
		t.Fatal(err)
	}
	for n, category := range []string{"torrent", "streaming", "voip", "chat"} {
		for _, c := range []conn{udp(n), udp6(n)} {
			k.begun(c, category, 1, true)
			frame := c.sent(0, 972)
			for range 10 {
				for _, program := range programs {
					if verdict, out := k.run(program, frame); verdict != passed(program) || !bytes.Equal(out, frame) {
						t.Fatalf("%s: %s changed or dropped a packet", category, program)
					}
				}
			}
			if r := k.flow(c.key()); r.Dropped != 0 || !r.DryRun || r.Rule != n+1 {
				t.Errorf("%s: %+v", category, r.Live)
			}
		}
	}
	report := k.report()
	if !report.Policy.DryRun {
		t.Error("the policy does not say that it is a dry run")
	}
	for n, want := range []RuleStats{{Dropped: 60}, {Dropped: 60 - 2*5 - 1}, {Marked: 60}, {Dropped: 60 - 2*5}} {
		got := report.Rules[n].RuleStats
		if got.Packets < 60 || got.Marked != want.Marked || got.Dropped > want.Dropped || got.Dropped < want.Dropped*3/4 {
			t.Errorf("rule %d: %+v, want about %+v", n+1, got, want)
		}
	}
	k.policy(rules...)
	if got := k.passes(progIn, udp(0), 3); got != 0 {
		t.Errorf("%d packets passed afterwards", got)
	}
}

// TestPerHost: each far host has its own bucket, whatever its flows; with near it is the other end's.
func TestPerHost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		near      bool
		in, out   int // packets of two hosts, two flows each, to or from one near host
		addresses string
	}{{false, 12, 6, "far"}, {true, 6, 12, "near"}} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		flows := []conn{hostOf(1), hostOf(2), hostOf(1), hostOf(2)}
		flows[2].client = netip.AddrPortFrom(flows[2].client.Addr(), 7)
		flows[3].client = netip.AddrPortFrom(flows[3].client.Addr(), 8)
		for _, c := range flows {
			k.begun(c, "streaming", 1, true)
		}
		action := policing(100, flow.ScopeHost)
		action.Near = test.near
		k.policy(flow.Rule{Categories: []string{"streaming"}, Action: action})
		for program, want := range map[string]int{progIn: test.in, progOut: test.out} {
			got := 0
			for _, c := range flows {
				got += k.passes(program, c, 10) // the client sends in both: on progOut the server is the far end
			}
			if got != want {
				t.Errorf("%s, %s: %d packets passed, want %d", test.addresses, program, got, want)
			}
		}
	}
}

// TestPrefixOfHost: with a prefix, addresses that share it are one host.
func TestPrefixOfHost(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[int]int{0: 12, 128: 12, 64: 6} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		a, b := udp6(1), udp6(1)
		addr := a.client.Addr().As16()
		addr[15] ^= 1
		b.client = netip.AddrPortFrom(netip.AddrFrom16(addr), 9)
		action := policing(100, flow.ScopeHost)
		action.Prefix6 = prefix
		for _, c := range []conn{a, b} {
			k.begun(c, "streaming", 1, true)
		}
		k.policy(flow.Rule{Action: action})
		if got := k.passes(progIn, a, 10) + k.passes(progIn, b, 10); got != want {
			t.Errorf("/%d: %d packets passed, want %d", prefix, got, want)
		}
	}
}

// TestFairShare: a host that takes all it can leaves a share to the next one, which a plain bucket does not.
func TestFairShare(t *testing.T) {
	t.Parallel()
	for scope, want := range map[flow.Scope][2]int{flow.ScopeClass: {101, 0}, flow.ScopeFair: {51, 26}} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		greedy, late := k.begun(hostOf(1), "streaming", 1, true), k.begun(hostOf(2), "streaming", 1, true)
		k.policy(flow.Rule{Action: flow.Action{Rate: 80, Burst: 99_500, Scope: scope, DSCP: -1}})
		first, second := k.passes(progIn, greedy, 300), k.passes(progIn, late, 300)
		if first < want[0]-1 || first > want[0]+1 || second < want[1]-1 || second > want[1]+1 {
			t.Errorf("scope %d: %d and %d packets passed, want about %v", scope, first, second, want)
		}
	}
}

// TestQuota: bytes of both directions count, each host for itself, until the day ends.
func TestQuota(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		over flow.Over
		pass int // of 10 packets beyond the quota
		dscp byte
	}{
		"drop": {flow.Over{Drop: true, DSCP: -1}, 0, packettestDSCP},
		"rate": {flow.Over{Rate: 80, Burst: 2500, DSCP: -1}, 4 - 1, packettestDSCP},
		"dscp": {flow.Over{DSCP: 8}, 10, 8},
	} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		a, b := k.begun(hostOf(1), "streaming", 1, true), k.begun(hostOf(2), "streaming", 1, true)
		rule := flow.Rule{Categories: []string{"streaming"}, Action: flow.Action{DSCP: -1, Quota: 10_000, Over: test.over}}
		k.policy(rule)
		answer := a.answer(0, 972)
		for range 5 {
			k.pass(progOut, answer)
		}
		if got := k.passes(progIn, a, 5); got != 5 {
			t.Errorf("%s: %d of 5 packets passed within the quota", name, got)
		}
		if got := k.passes(progIn, a, 10); got != test.pass {
			t.Errorf("%s: %d of 10 packets passed beyond the quota, want %d", name, got, test.pass)
		}
		if _, out := k.run(progIn, a.sent(0, 972)); out[15]>>2 != test.dscp {
			t.Errorf("%s: DSCP %d, want %d", name, out[15]>>2, test.dscp)
		}
		if got := k.passes(progIn, b, 10); got != 10 {
			t.Errorf("%s: %d of 10 packets of another host passed", name, got)
		}
		// It survives another policy.
		k.policy(flow.Rule{Categories: []string{"email"}, Action: passing}, rule)
		if got := k.passes(progOut, conn{a.proto, a.server, a.client}, 1); got == 1 != (test.pass > 4 || name == "rate") {
			t.Errorf("%s: %d packets passed after an apply", name, got)
		}
		uses, err := k.rules.Hosts(2)
		if err != nil || len(uses) != 2 || uses[0].Bytes < 20_000 || uses[0].Host.Addr() != a.client.Addr() || uses[1].Bytes != 10_000 {
			t.Errorf("%s: %+v, %v", name, uses, err)
		}
		// The next day.
		bank := k.inForce().Epoch & 1
		var active bpfActive
		if err := k.maps.ActiveRules.Lookup(bank, &active); err != nil || active.Day == 0 {
			t.Fatalf("%+v, %v", active, err)
		}
		active.Day++
		if err := k.maps.ActiveRules.Put(bank, &active); err != nil {
			t.Fatal(err)
		}
		if got := k.passes(progIn, a, 10); got != 10 {
			t.Errorf("%s: %d of 10 packets passed the next day", name, got)
		}
	}
}

func (k *kernel) inForce() bpfPolicyState {
	k.t.Helper()
	state, err := k.rules.state()
	if err != nil {
		k.t.Fatal(err)
	}
	return state
}

// TestScheduleInKernel: the kernel's timer ends and begins a rule without any process; the next rule acts meanwhile.
func TestScheduleInKernel(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	c := k.begun(udp(1), "streaming", 1, true)
	always := flow.Schedule{Days: [7]bool{true, true, true, true, true, true, true}}
	k.policy(flow.Rule{Schedule: &always, Action: dropping}, flow.Rule{Action: passing})
	if got := k.passes(progIn, c, 1); got != 0 {
		t.Fatal("the rule does not act")
	}
	bank := k.inForce().Epoch & 1
	now := time.Now().Unix()
	for n, m := range []bpfMoment{{At: uint64(now), Inactive: 1}, {At: uint64(now + 6)}} {
		if err := k.maps.Moments.Put(bank*uint32(bpfLimitMaxMoments)+1+uint32(n), &m); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.maps.ActiveRules.Put(bank, &bpfActive{Moments: 3, Next: 1}); err != nil {
		t.Fatal(err)
	}
	if err := k.rules.withClock(func(c *policyClock) error { return c.start(bpfClockKindClockStart) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rule rests", func() bool { return k.passes(progIn, c, 1) == 1 })
	if r := k.flow(c.key()); r.Rule != 2 {
		t.Errorf("rule %d acts, want 2", r.Rule)
	}
	if !k.report().Rules[0].Rests || k.report().Rules[1].Rests {
		t.Error("the report does not say which rule rests")
	}
	eventually(t, "the rule acts again", func() bool { return k.passes(progIn, c, 1) == 0 })
}

// TestTry: the kernel takes a policy back that nobody confirms, with counters and buckets as they were.
func TestTry(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	c := k.begun(udp(1), "streaming", 1, true)
	before := &flow.Policy{Rules: []flow.Rule{{Action: passing}}, Source: []byte("before")}
	tried := &flow.Policy{Rules: []flow.Rule{{Action: dropping}, {Action: passing}}, Source: []byte("tried")}
	source := func() string { return string(k.report().Policy.Source) }
	if err := k.rules.Set(before); err != nil {
		t.Fatal(err)
	}
	k.passes(progIn, c, 7)
	if err := k.rules.Try(tried, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if k.passes(progIn, c, 1) != 0 || k.report().ConfirmBy.IsZero() {
		t.Error("the policy is not in force, or does not wait")
	}
	if err := k.rules.Set(before); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("another policy meanwhile: %v", err)
	}
	eventually(t, "the former policy", func() bool { return source() == "before" })
	if k.passes(progIn, c, 1) != 1 || !k.report().ConfirmBy.IsZero() {
		t.Error("the former policy is not in force")
	}
	if rules := k.report().Rules; len(rules) != 1 || rules[0].Packets != 8 {
		t.Errorf("the former policy has %+v", rules)
	}
	if confirmed, err := k.rules.Confirm(); err != nil || confirmed {
		t.Errorf("nothing to confirm: %v, %v", confirmed, err)
	}

	if err := k.rules.Try(tried, time.Hour); err != nil {
		t.Fatal(err)
	}
	if confirmed, err := k.rules.Confirm(); err != nil || !confirmed {
		t.Fatalf("%v, %v", confirmed, err)
	}
	if source() != "tried" || !k.report().ConfirmBy.IsZero() {
		t.Error("a confirmed policy waits, or is gone")
	}
	// Another agent replaces a policy that waits, but does not confirm it by a policy with an error.
	if err := k.rules.Try(before, time.Hour); err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]*flow.Policy{
		"label":  {Rules: []flow.Rule{{Categories: []string{"no such"}, Action: dropping}}},
		"prefix": {Prefixes: []netip.Prefix{{}}},
	} {
		if err := k.rules.Replace(bad); err == nil || k.inForce().ConfirmNs == 0 {
			t.Errorf("%s: %v, %+v", what, err, k.inForce())
		}
	}
	if err := k.rules.Replace(tried); err != nil || source() != "tried" || k.inForce().ConfirmNs != 0 {
		t.Errorf("%v, %+v", err, k.inForce())
	}
	// A policy may always be removed, and stays so.
	if err := k.rules.Try(before, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := k.rules.Clear(); err != nil {
		t.Fatal(err)
	}
	if p, _, err := k.rules.Policy(); p != nil || err != nil || k.inForce().ConfirmNs != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// setBack makes a schedule as it was applied an hour ahead, before the wall clock was set back to now.
func (k *kernel) setBack() (offset uint64) {
	k.t.Helper()
	const hour = 3600
	index := k.inForce().Epoch & 1 * uint32(bpfLimitMaxMoments)
	var first bpfMoment
	if err := k.maps.Moments.Lookup(index, &first); err != nil {
		k.t.Fatal(err)
	}
	first.At += hour
	if err := k.maps.Moments.Put(index, &first); err != nil {
		k.t.Fatal(err)
	}
	offset = k.wall() + hour*uint64(time.Second)
	if err := k.rules.putWall(offset); err != nil {
		k.t.Fatal(err)
	}
	return offset
}

func (k *kernel) wall() (offset uint64) {
	k.t.Helper()
	if err := k.maps.Wall.Lookup(uint32(0), &offset); err != nil {
		k.t.Fatal(err)
	}
	return offset
}

// scheduled is a policy with moments.
func scheduled() *flow.Policy {
	return &flow.Policy{Source: []byte("scheduled"), Rules: []flow.Rule{{Schedule: &flow.Schedule{Days: [7]bool{true}}, Action: dropping}}}
}

// TestClockSetBack: a policy whose first moment is in the future is renewed; it stays the policy that was applied.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	ends := func() bool {
		t.Helper()
		due, err := k.rules.ScheduleEnds()
		if err != nil {
			t.Fatal(err)
		}
		return due
	}
	if err := k.rules.Set(scheduled()); err != nil {
		t.Fatal(err)
	}
	applied := k.report()
	if err := k.rules.FollowClock(); err != nil || ends() {
		t.Errorf("a clock that goes on ends the schedule (%v)", err)
	}
	wrong := k.setBack()
	if err := k.rules.FollowClock(); err != nil || !ends() || k.wall() > wrong-uint64(time.Minute) {
		t.Errorf("the schedule does not end with a clock that is set back (%v)", err)
	}
	if err := k.rules.Renew(scheduled(), applied.Number); err != nil || ends() {
		t.Errorf("the schedule ends after it is renewed (%v)", err)
	}
	renewed := k.report()
	if renewed.Number == applied.Number || !renewed.Policy.Applied.Equal(applied.Policy.Applied) {
		t.Errorf("%+v, before %+v", renewed, applied)
	}
	// An operator was faster.
	k.policy(flow.Rule{Action: passing})
	now := k.inForce()
	if err := k.rules.Renew(scheduled(), renewed.Number); err != nil || k.inForce() != now {
		t.Errorf("%v: %+v, before %+v", err, k.inForce(), now)
	}
}

// TestClockSetWhileLocked: a step of the wall clock is not lost if another process is changing the policy.
func TestClockSetWhileLocked(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	if err := k.rules.Set(scheduled()); err != nil {
		t.Fatal(err)
	}
	k.rules.dir = filepath.Join(t.TempDir(), "pins")
	unlock, err := lockPolicies(k.rules.dir, policyWait)
	if err != nil {
		t.Fatal(err)
	}
	wrong := k.setBack()
	if err := k.rules.FollowClock(); err == nil || k.wall() != wrong {
		t.Errorf("error %v, clock %d, want that from before: %d", err, k.wall(), wrong)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := k.rules.FollowClock(); err != nil || k.wall() == wrong {
		t.Errorf("the clock stays wrong (%v)", err)
	}
}

// TestKeepMarked: a DSCP that the packet has stays, and is counted.
func TestKeepMarked(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	action := marking(46)
	action.KeepMarked = true
	k.policy(flow.Rule{Action: action})
	for n, program := range programs {
		for _, c := range []conn{udp(n), udp6(n)} {
			k.begun(c, "voip", 1, true)
			for _, has := range []byte{0, 10, 46} {
				frame := packettest.Ethernet(c.spec(0, 50).Build().Data)
				dscp := func(frame []byte) byte {
					if frame[14]>>4 == 4 {
						return frame[15] >> 2
					}
					return frame[14]&0xf<<2 | frame[15]>>6
				}
				if c.client.Addr().Is4() {
					frame[15] = has << 2
				} else {
					frame[14], frame[15] = 0x60|has>>2, has<<6
				}
				want := has
				if has == 0 {
					want = 46
				}
				if _, out := k.run(program, frame); dscp(out) != want {
					t.Errorf("%s, %v: DSCP %d became %d", program, c.client, has, dscp(out))
				}
			}
		}
	}
	rule := k.report().Rules[0]
	if rule.Marked != 6 || rule.DSCPs[10] != 6 || rule.DSCPs[46] != 12 || rule.Categories["voip"] != 18 {
		t.Errorf("%+v", rule)
	}
}

// TestMarkAndClass: sent packets get them, received ones do not; protected ones too, because that harms nobody.
func TestMarkAndClass(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	k.policy(flow.Rule{Action: flow.Action{DSCP: -1, Mark: 0xfeed, ClassID: 1<<16 | 20}})
	c := k.begun(udp(1), "voip", 1, true)
	for program, want := range map[string][2]uint32{progIn: {}, progOut: {0xfeed, 1<<16 | 20}} {
		context := struct {
			_        [8]byte
			Mark     uint32
			_        [20]byte
			Priority uint32
			_        [156]byte
		}{}
		_, err := k.collection.Programs[program].Run(&ebpf.RunOptions{Data: c.sent(0, 50), Context: context, ContextOut: &context})
		if err != nil || context.Mark != want[0] || context.Priority != want[1] {
			t.Errorf("%s: mark %#x, priority %#x (%v)", program, context.Mark, context.Priority, err)
		}
	}
}

// TestMoments: schedules follow the clock on the wall, also when it is set forward and back.
func TestMoments(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("SKIPPED: no time zones: %v", err)
	}
	everyDay := [7]bool{true, true, true, true, true, true, true}
	sunday := [7]bool{true}
	for name, test := range map[string]struct {
		schedule flow.Schedule
		from     string
		want     []string // begins, ends, begins, …
	}{
		"set forward": {flow.Schedule{Days: everyDay, Hours: []flow.Hours{{From: 120, To: 240}}}, "2026-03-29T00:00:00+01:00",
			[]string{"2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		"set back": {flow.Schedule{Days: everyDay, Hours: []flow.Hours{{From: 60, To: 150}}}, "2026-10-25T00:00:00+02:00",
			[]string{"2026-10-25T01:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"}},
		"over midnight": {flow.Schedule{Days: sunday, Hours: []flow.Hours{{From: 22 * 60, To: 6 * 60}}}, "2026-05-01T00:00:00+02:00",
			[]string{"2026-05-03T22:00:00+02:00", "2026-05-04T06:00:00+02:00", "2026-05-10T22:00:00+02:00"}},
		"all day": {flow.Schedule{Days: sunday}, "2026-05-01T00:00:00+02:00",
			[]string{"2026-05-03T00:00:00+02:00", "2026-05-04T00:00:00+02:00", "2026-05-10T00:00:00+02:00"}},
	} {
		from, err := time.Parse(time.RFC3339, test.from)
		if err != nil {
			t.Fatal(err)
		}
		moments := momentsOf(&flow.Policy{Zone: berlin, Rules: []flow.Rule{{}, {Schedule: &test.schedule}}}, from)
		if len(moments) <= len(test.want) || moments[0].Inactive != 2 {
			t.Fatalf("%s: %d moments, first %+v", name, len(moments), moments[0])
		}
		for n, want := range test.want {
			at, _ := time.Parse(time.RFC3339, want)
			got := moments[n+1]
			if inactive := uint64(2 * (n % 2)); int64(got.At) != at.Unix() || got.Inactive != inactive {
				t.Errorf("%s: at %v rules %b rest; want %v, %b", name, time.Unix(int64(got.At), 0).In(berlin), got.Inactive, at, inactive)
			}
		}
	}
	days := momentsOf(&flow.Policy{Zone: berlin, Rules: []flow.Rule{{Action: flow.Action{Quota: 1}}}}, time.Date(2026, 3, 28, 12, 0, 0, 0, berlin))
	if days[0].Day != 20260328 || days[2].Day != 20260330 || days[2].At-days[1].At != 23*3600 {
		t.Errorf("days begin at %+v", days[:3])
	}
	if none := momentsOf(&flow.Policy{Rules: []flow.Rule{{}}}, time.Now()); none != nil {
		t.Errorf("%d moments without a schedule", len(none))
	}
}
