// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/dpclass/dpclass/internal/flow"
)

// nothing is the action of a rule that only passes.
var nothing = flow.Action{DSCP: -1}

func (k *kernel) apply(p flow.Policy) {
	k.t.Helper()
	if err := k.SetPolicy(&p); err != nil {
		k.t.Fatal(err)
	}
}

// begin begins a connection and returns its life.
func (k *kernel) begin(c conn) flow.ID {
	k.t.Helper()
	k.pass(progXDP, c.sent(syn, 0), c.sent(ack|psh, 100))
	return k.id(c.key())
}

// acts returns the number of the rule that acts on the flow's next packet, and whether that is dropped.
func (k *kernel) acts(c conn) (rule int, drop bool) {
	k.t.Helper()
	verdict, _ := k.run(progXDP, c.sent(ack|psh, 100))
	return k.flow(c.key()).Rule, verdict == dropped(progXDP)
}

func TestRules(t *testing.T) {
	k := newKernel(t, Config{}, ethernet)
	drop := flow.Action{Drop: true, DSCP: -1}
	k.apply(flow.Policy{Rules: []flow.Rule{
		{Categories: []string{"voip"}, MinConfidence: .9, Action: nothing},
		{Categories: []string{"voip", "torrent"}, Action: drop},
		{Apps: []string{"tor"}, Provisional: true, Action: nothing},
		{MinConfidence: .8, Action: nothing},
	}})
	for n, test := range []struct {
		category   string
		confidence float64
		app        string
		final      bool
		rule       int
		drop       bool
	}{
		{"", 0, "", false, 0, false},
		{"voip", .95, "", true, 1, false},  // the first match wins
		{"voip", .5, "", true, 2, true},    // not sure enough for the first
		{"torrent", .1, "", true, 2, true}, // no confidence asked for
		{"voip", .5, "", false, 0, false},  // provisional
		{"", 0, "tor", false, 3, false},    // provisional, and the rule wants that
		{"chat", .9, "", true, 4, false},
		{"chat", .7, "", true, 0, false},
	} {
		c := tcp(100 + n)
		id := k.begin(c)
		v := flow.Verdict{Final: test.final}
		if test.category != "" {
			v.Category = flow.TaskVerdict{Label: test.category, Confidence: test.confidence, Source: flow.SourceModel}
		}
		if test.app != "" {
			v.App = flow.TaskVerdict{Label: test.app, Confidence: .5, Source: flow.SourceModel}
		}
		if stale, err := k.Apply([]flow.Decision{{ID: id, Verdict: v}}); err != nil || stale != 0 {
			t.Fatal(stale, err)
		}
		if rule, drop := k.acts(c); rule != test.rule || drop != test.drop {
			t.Errorf("%+v: rule %d, dropped %v", test, rule, drop)
		}
	}
	// A new policy acts on decided flows at once, and so does none.
	k.apply(flow.Policy{Rules: []flow.Rule{{Categories: []string{"chat"}, Action: drop}}})
	if rule, drop := k.acts(tcp(106)); rule != 1 || !drop {
		t.Errorf("after another policy: rule %d, dropped %v", rule, drop)
	}
	if err := k.ClearPolicy(); err != nil {
		t.Fatal(err)
	}
	if rule, drop := k.acts(tcp(106)); rule != 0 || drop {
		t.Errorf("without a policy: rule %d, dropped %v", rule, drop)
	}
}

func TestPolicyWholeOrNot(t *testing.T) {
	k := newKernel(t, Config{}, ethernet)
	k.apply(flow.Policy{Rules: []flow.Rule{{Action: nothing}}, Source: []byte("one")})
	bad := flow.Policy{Rules: []flow.Rule{{Action: nothing}, {Categories: []string{"no-such-label"}, Action: nothing}}, Source: []byte("two")}
	if err := k.SetPolicy(&bad); err == nil {
		t.Fatal("a rule with an unknown label was taken")
	}
	if got, stats, err := k.Policy(); err != nil || string(got.Source) != "one" || len(stats) != 1 {
		t.Errorf("%+v %v %v", got, stats, err)
	}
}

func TestOperatorWins(t *testing.T) {
	k := newKernel(t, Config{}, ethernet)
	c := tcp(1)
	id := k.begin(c)
	operator := flow.Verdict{Final: true, Category: flow.TaskVerdict{Label: "voip", Confidence: 1, Source: flow.SourceOperator}}
	if err := k.SetVerdict(c.key(), operator); err != nil {
		t.Fatal(err)
	}
	model := flow.Verdict{
		Category: flow.TaskVerdict{Label: "chat", Confidence: .9, Source: flow.SourceModel, Model: "m"},
		App:      flow.TaskVerdict{Label: "aim", Confidence: .9, Source: flow.SourceModel, Model: "m"},
	}
	if _, err := k.Apply([]flow.Decision{{ID: id, Verdict: model}}); err != nil {
		t.Fatal(err)
	}
	if r := k.flow(c.key()); r.Category != "voip" || r.App != "aim" || r.Source != "operator" || !r.Final {
		t.Errorf("%+v", r)
	}
	if err := k.SetVerdict(tcp(2).key(), operator); err == nil {
		t.Error("a verdict on a flow that is not there was taken")
	}
}

func TestMidstreamDrop(t *testing.T) {
	for _, midstream := range []bool{false, true} {
		k := newKernel(t, Config{}, ethernet)
		c := tcp(1)
		k.pass(progXDP, c.sent(ack|psh, 100))
		k.decide(k.id(c.key()), "torrent", 1, true)
		k.apply(flow.Policy{Rules: []flow.Rule{{Categories: []string{"torrent"}, Midstream: midstream, Action: flow.Action{Drop: true}}}})
		if _, drop := k.acts(c); drop != midstream {
			t.Errorf("midstream: %v: dropped %v", midstream, drop)
		}
	}
}

// TestPolicer counts what a bucket lets through at once: a burst of ten packets, and the one that overdraws it.
func TestPolicer(t *testing.T) {
	const size, burst = 140, 10 * 140 // IP bytes
	for _, scope := range []flow.Scope{flow.ScopeClass, flow.ScopeFlow} {
		k := newKernel(t, Config{}, ethernet)
		for n := range 2 {
			k.begin(tcp(n))
			k.decide(k.id(tcp(n).key()), "streaming", 1, true)
		}
		// A packet takes 2.8 s at 400 bit/s: nothing flows back during the test.
		k.apply(flow.Policy{Rules: []flow.Rule{{Categories: []string{"streaming"},
			Action: flow.Action{DSCP: -1, Rate: 400, Burst: burst, Scope: scope}}}})
		passes := func(n int, program string) (count int) {
			for range 30 {
				frame := tcp(n).sent(ack|psh, size-40)
				if program == progOut {
					frame = tcp(n).answer(ack|psh, size-40)
				}
				if verdict, _ := k.run(program, frame); verdict == passed(program) {
					count++
				}
			}
			return count
		}
		const full = burst/size + 1
		second := full
		if scope == flow.ScopeClass {
			second = 0
		}
		if in, other, out := passes(0, progXDP), passes(1, progXDP), passes(0, progOut); in != full || other != second || out != full {
			t.Errorf("scope %v: %d of the first flow, %d of the second, %d of the other direction; want %d, %d, %d",
				scope, in, other, out, full, second, full)
		}
		_, stats, err := k.Policy()
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(90 - 2*full - second); stats[0].Packets != 90 || stats[0].Dropped != want || stats[0].DroppedBytes != want*size {
			t.Errorf("scope %v: %+v, want %d dropped", scope, stats[0], want)
		}
		if r := k.flow(tcp(0).key()); r.Dropped != 60-2*full {
			t.Errorf("scope %v: the flow has %d packets dropped", scope, r.Dropped)
		}
	}
}

// TestDSCP marks packets with each value of the ECN bits.
func TestDSCP(t *testing.T) {
	const ef = 46
	for _, c := range []conn{tcp(1), tcp6(1)} {
		for _, program := range programs {
			k := newKernel(t, Config{}, ethernet)
			k.begin(c)
			k.decide(k.id(c.key()), "voip", 1, true)
			k.apply(flow.Policy{Rules: []flow.Rule{{Categories: []string{"voip"}, Action: flow.Action{DSCP: ef}}}})
			for ecn := range byte(4) {
				frame := c.sent(ack|psh, 100)
				six := c.client.Addr().Is6()
				if six {
					frame[15] = frame[15]&0x0f | ecn<<4
				} else {
					frame[15] = ecn
					frame[24], frame[25] = 0, 0
					sum := checksum(frame[14:34])
					frame[24], frame[25] = byte(sum>>8), byte(sum)
				}
				verdict, out := k.run(program, frame)
				class := out[15]
				if six {
					class = out[14]<<4 | out[15]>>4
				}
				if verdict != passed(program) || class>>2 != ef || class&3 != ecn {
					t.Errorf("%s %v ECN %d: verdict %d, traffic class %#x", program, c.key(), ecn, int32(verdict), class)
				}
				if !six && checksum(out[14:34]) != 0 {
					t.Errorf("%s ECN %d: the header's checksum is wrong", program, ecn)
				}
				want := append([]byte{}, frame...)
				copy(want[14:16], out[14:16])
				if !six {
					copy(want[24:26], out[24:26])
				}
				if fmt.Sprintf("%x", want) != fmt.Sprintf("%x", out) {
					t.Errorf("%s: more than the class was changed", program)
				}
			}
		}
	}
}

func TestProtect(t *testing.T) {
	for name, p := range map[string]flow.Policy{
		"port":   {Ports: []flow.PortProtect{{Proto: flow.TCP, Port: 443}}},
		"prefix": {Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/16"), netip.MustParsePrefix("2001:db8::8/125")}},
		"flow":   {Flows: []flow.Key{tcp(1).key(), tcp6(1).key()}},
		"":       {},
		"others": {
			Ports:    []flow.PortProtect{{Proto: flow.UDP, Port: 443}},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("198.52.0.0/16"), netip.MustParsePrefix("2001:db9::/32")},
			Flows:    []flow.Key{tcp(2).key()},
		},
	} {
		for _, c := range []conn{tcp(1), tcp6(1)} {
			k := newKernel(t, Config{}, ethernet)
			k.begin(c)
			k.decide(k.id(c.key()), "torrent", 1, true)
			p.Rules = []flow.Rule{{Categories: []string{"torrent"}, Action: flow.Action{Drop: true}}}
			k.apply(p)
			protected := name != "" && name != "others"
			if rule, drop := k.acts(c); rule != 1 || drop == protected {
				t.Errorf("protect %q, %v: rule %d, dropped %v", name, c.key(), rule, drop)
			}
			// And no longer, once another policy does not name it.
			k.apply(flow.Policy{Rules: p.Rules})
			if _, drop := k.acts(c); !drop {
				t.Errorf("protect %q, %v: still protected", name, c.key())
			}
		}
	}
}
