// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

var (
	passing  = flow.Action{DSCP: -1}
	dropping = flow.Action{Drop: true, DSCP: -1}
)

func marking(dscp int) flow.Action { return flow.Action{DSCP: dscp} }

// policing lets 6 packets of 1000 bytes back to back, and then one in `seconds`.
func policing(seconds uint64, scope flow.Scope) flow.Action {
	return flow.Action{Rate: 8000 / seconds, Burst: 5000, Scope: scope, DSCP: -1}
}

func (k *kernel) policy(rules ...flow.Rule) {
	k.t.Helper()
	if err := k.rules.Set(&flow.Policy{Rules: rules}); err != nil {
		k.t.Fatal(err)
	}
}

// fresh is policy with new counters and buckets, even for rules that were there before.
func (k *kernel) fresh(rules ...flow.Rule) {
	k.t.Helper()
	if err := k.rules.Clear(); err != nil {
		k.t.Fatal(err)
	}
	k.policy(rules...)
}

// begun begins a connection and gives it a verdict.
func (k *kernel) begun(c conn, category string, confidence float64, final bool) conn {
	k.t.Helper()
	k.opened(c)
	k.decide(k.id(c.key()), category, confidence, final)
	return c
}

// opened begins a connection; of TCP with packets of both ends.
func (k *kernel) opened(c conn) {
	k.t.Helper()
	k.pass(progXDP, c.sent(syn, 0))
	if c.proto == packettest.TCP {
		k.pass(progOut, c.answer(syn|ack, 0))
		k.pass(progXDP, c.sent(ack, 0))
	}
}

func TestRuleThatActs(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	k.policy(
		flow.Rule{Categories: []string{"voip"}, MinConfidence: .9, Action: passing},
		flow.Rule{Categories: []string{"voip", "streaming"}, Action: passing},
		flow.Rule{Categories: []string{"chat"}, Provisional: true, Action: passing},
		flow.Rule{Apps: []string{"tor"}, Action: passing},
		flow.Rule{MinConfidence: .8, Action: passing},
	)
	for n, test := range []struct {
		category   string
		confidence float64
		final      bool
		rule       int
	}{
		{"voip", .95, true, 1}, {"voip", .85, true, 2}, {"streaming", .1, true, 2}, {"voip", .95, false, 0},
		{"chat", .3, false, 3}, {"chat", .3, true, 3}, {"email", .85, true, 5}, {"email", .75, true, 0}, {flow.Unknown, .9, true, 5},
	} {
		c := k.begun(tcp(n), test.category, test.confidence, test.final)
		k.pass(progXDP, c.sent(ack, 0))
		if r := k.flow(c.key()); r.Rule != test.rule {
			t.Errorf("%+v: rule %d", test, r.Rule)
		}
	}
	c := tcp(100)
	k.pass(progXDP, c.sent(syn, 0))
	if err := k.table.SetVerdicts(c.key(), flow.Verdicts{flow.App: {Label: "tor", Confidence: 1, Source: flow.SourceOperator, Final: true}}); err != nil {
		t.Fatal(err)
	}
	k.pass(progXDP, c.sent(ack, 0))
	if r := k.flow(c.key()); r.Rule != 4 || r.App != "tor" {
		t.Errorf("app: %+v", r.Live)
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, program := range programs {
		for _, c := range []conn{tcp(n), tcp6(n)} {
			k.fresh(flow.Rule{Categories: []string{"torrent"}, Action: dropping})
			k.begun(c, "torrent", 1, true)
			for range 3 {
				if verdict, _ := k.run(program, c.sent(ack, 100)); verdict != dropped(program) {
					t.Fatalf("%s: returned %d", program, int32(verdict))
				}
			}
			_, stats, err := k.rules.Policy()
			bytes := uint64(3 * (len(c.sent(ack, 100)) - 14))
			if err != nil || len(stats) != 1 || stats[0] != (RuleStats{Packets: 3, Bytes: bytes, Dropped: 3, DroppedBytes: bytes}) {
				t.Errorf("%s: %+v, %v", program, stats, err)
			}
			if r := k.flow(c.key()); r.Dropped != 3 {
				t.Errorf("%d dropped", r.Dropped)
			}
		}
	}
}

// TestMidstreamIsNotDropped unless the rule says so.
func TestMidstreamIsNotDropped(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := tcp(1)
	k.pass(progXDP, c.sent(ack, 0), c.answer(ack, 0))
	k.decide(k.id(c.key()), "torrent", 1, true)
	k.policy(flow.Rule{Action: dropping})
	k.pass(progXDP, c.sent(ack, 0))
	k.policy(flow.Rule{Action: dropping, Midstream: true})
	if verdict, _ := k.run(progXDP, c.sent(ack, 0)); verdict != xdpDrop {
		t.Error("midstream: true does not act")
	}
}

func TestProtect(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	rule := []flow.Rule{{Action: dropping}}
	for name, test := range map[string]struct {
		policy flow.Policy
		passes conn
		drops  conn
	}{
		"prefix":  {flow.Policy{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.0.0/24")}}, tcp(1), tcp(1 << 14)},
		"prefix6": {flow.Policy{Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, tcp6(1), tcp(1)},
		"port":    {flow.Policy{Ports: []flow.PortProtect{{Proto: flow.TCP, Port: 443}}}, tcp(1), udp(1)},
		"flow":    {flow.Policy{Flows: []flow.Key{tcp(1).key()}}, tcp(1), tcp(2)},
	} {
		if err := k.rules.Clear(); err != nil {
			t.Fatal(err)
		}
		k.begun(test.passes, "chat", 1, true)
		k.begun(test.drops, "chat", 1, true)
		test.policy.Rules = rule
		if err := k.rules.Set(&test.policy); err != nil {
			t.Fatal(err)
		}
		k.pass(progXDP, test.passes.sent(ack, 0))
		if verdict, _ := k.run(progXDP, test.drops.sent(ack, 0)); verdict != xdpDrop {
			t.Errorf("%s protects too much", name)
		}
		k.policy(rule...)
		if verdict, _ := k.run(progXDP, test.passes.sent(ack, 0)); verdict != xdpDrop {
			t.Errorf("%s: protected by the policy before", name)
		}
	}
}

// TestNeverDropped: ARP, ICMP and ND have no flow.
func TestNeverDropped(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	k.policy(flow.Rule{Action: dropping, Midstream: true, Provisional: true})
	arp := append(packettest.Ethernet(nil)[:12], 8, 6)
	arp = append(arp, make([]byte, 46)...)
	for _, program := range programs {
		k.pass(program, arp, packettest.Ethernet(packettest.Spec{Proto: 1, Payload: 56}.Build().Data),
			packettest.Ethernet(packettest.Spec{IPv6: true, Proto: packettest.ICMP6, Payload: 24}.Build().Data))
	}
}

func TestPolice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		scope flow.Scope
		want  int // of two flows of 20 packets each
	}{{flow.ScopeClass, 6}, {flow.ScopeFlow, 12}} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		flows := []conn{k.begun(udp(1), "streaming", 1, true), k.begun(udp(2), "streaming", 1, true)}
		// A packet in 100 s: nothing is refilled during the test.
		k.policy(flow.Rule{Categories: []string{"streaming"}, Action: policing(100, test.scope)})
		for _, program := range []string{progXDP, progOut} {
			got := 0
			for range 20 {
				for _, c := range flows {
					if verdict, _ := k.run(program, c.sent(0, 972)); verdict == passed(program) {
						got++
					}
				}
			}
			if got != test.want {
				t.Errorf("scope %d, %s: %d packets passed, want %d", test.scope, program, got, test.want)
			}
		}
		_, stats, _ := k.rules.Policy()
		if stats[0].Packets != 80 || stats[0].Dropped != uint64(80-2*test.want) || stats[0].DroppedBytes != 1000*stats[0].Dropped {
			t.Errorf("%+v", stats[0])
		}
		for _, c := range flows {
			if r := k.flow(c.key()); r.Dropped == 0 || r.DroppedBytes != 1000*r.Dropped {
				t.Errorf("flow %q: %+v", c.key(), r.Live)
			}
		}
	}
}

// TestPolicerRefills: as many packets pass again as the time that went by is worth. The test turns the bucket's
// clock back instead of waiting.
func TestPolicerRefills(t *testing.T) {
	t.Parallel()
	const second = uint64(time.Second)
	for _, scope := range []flow.Scope{flow.ScopeClass, flow.ScopeFlow} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		c := k.begun(udp(1), "streaming", 1, true)
		k.policy(flow.Rule{Action: policing(100, scope)}) // a packet in 100 s
		for _, test := range []struct {
			seconds uint64
			want    int
		}{{0, 6}, {0, 0}, {300, 3}, {50, 0}, {50, 1}, {10000, 6}} {
			k.turnBack(c.key(), scope, test.seconds*second)
			passed := 0
			for range 20 {
				if verdict, _ := k.run(progIn, c.sent(0, 972)); verdict == tcNext {
					passed++
				}
			}
			if passed != test.want {
				t.Errorf("scope %d, %d s later: %d packets passed, want %d", scope, test.seconds, passed, test.want)
			}
		}
	}
}

// turnBack makes the policer of received packets that much older: rule 1's, or the flow's.
func (k *kernel) turnBack(key flow.Key, scope flow.Scope, by uint64) {
	k.t.Helper()
	if scope == flow.ScopeFlow {
		f, _ := k.entry(key)
		f.TatIn -= min(f.TatIn, by)
		if err := k.maps.Flows.Put(narrowKey(key), &f); err != nil {
			k.t.Fatal(err)
		}
		return
	}
	rule, bucket := k.ruleInForce(1), bpfBucket{}
	slot := 2*uint32(rule.Slot) + uint32(flow.In)
	if err := k.maps.Buckets.Lookup(slot, &bucket); err != nil {
		k.t.Fatal(err)
	}
	bucket.Tat -= min(bucket.Tat, by)
	if err := k.maps.Buckets.Put(slot, &bucket); err != nil {
		k.t.Fatal(err)
	}
}

// ruleInForce returns a rule in the kernel's form.
func (k *kernel) ruleInForce(number int) bpfRule {
	k.t.Helper()
	state, err := k.rules.state()
	if err != nil {
		k.t.Fatal(err)
	}
	rules, err := k.rules.bank(state.Epoch & 1)
	if err != nil || len(rules) < number {
		k.t.Fatalf("%d rules in force: %v", len(rules), err)
	}
	return rules[number-1]
}

// TestDSCP: the mark is written, ECN and all else stay, the checksum is right.
func TestDSCP(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, program := range programs {
		for _, tags := range [][]uint16{nil, {0x8100}, {0x88a8, 0x8100}} {
			k.fresh(flow.Rule{Action: marking(46)})
			for _, c := range []conn{tcp(10*n + len(tags)), tcp6(10*n + len(tags))} {
				k.begun(c, "voip", 1, true)
				frame := packettest.Ethernet(c.spec(ack, 50).Build().Data, tags...)
				verdict, out := k.run(program, frame)
				if verdict != passed(program) {
					t.Fatalf("returned %d", int32(verdict))
				}
				ip, want := out[14+4*len(tags):], bytes.Clone(frame)
				head := want[14+4*len(tags):]
				if c.client.Addr().Is4() {
					head[1] = 46<<2 | head[1]&3
					head[10], head[11] = 0, 0
					binary.BigEndian.PutUint16(head[10:], checksum(head[:20]))
				} else {
					binary.BigEndian.PutUint16(head, binary.BigEndian.Uint16(head)&0xf03f|46<<6)
				}
				if !bytes.Equal(out, want) {
					t.Errorf("%s, tags %v: %x, want %x", program, tags, ip, head)
				}
			}
			if _, stats, _ := k.rules.Policy(); stats[0].Marked != 2 {
				t.Errorf("%s: %d marked", program, stats[0].Marked)
			}
		}
	}
}

func TestOperatorWins(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := tcp(1)
	k.pass(progXDP, c.sent(syn, 0))
	id := k.id(c.key())
	operator := flow.Verdicts{flow.Category: {Label: "voip", Confidence: 1, Source: flow.SourceOperator, Final: true}}
	if err := k.table.SetVerdicts(c.key(), operator); err != nil {
		t.Fatal(err)
	}
	k.decide(id, "streaming", 1, true)
	if r := k.flow(c.key()); r.Category != "voip" || r.Source != "operator" || !r.Final {
		t.Errorf("%+v", r)
	}
	if err := k.table.SetVerdicts(tcp(2).key(), operator); err == nil || !strings.Contains(err.Error(), "no such flow") {
		t.Errorf("verdict on no flow: %v", err)
	}
}

// TestPolicyChange: decided flows follow a new policy; one that is refused changes nothing.
func TestPolicyChange(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := k.begun(tcp(1), "voip", 1, true)
	drops := func(what string, want bool) {
		t.Helper()
		verdict, _ := k.run(progXDP, c.sent(ack, 0))
		if (verdict == xdpDrop) != want {
			t.Errorf("%s: returned %d", what, verdict)
		}
	}
	drops("none", false)
	k.policy(flow.Rule{Action: dropping})
	drops("first", true)
	err := k.rules.Set(&flow.Policy{Rules: []flow.Rule{{Action: passing}, {Categories: []string{"no label"}, Action: passing}}})
	if err == nil {
		t.Error("an unknown label was taken")
	}
	drops("refused", true)
	k.policy(flow.Rule{Action: passing})
	drops("second", false)
	k.policy(flow.Rule{Action: dropping})
	if err := k.rules.Clear(); err != nil {
		t.Fatal(err)
	}
	drops("cleared", false)
}

// TestPolicySwap: each packet meets one policy or the other, no mixture.
func TestPolicySwap(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	c := k.begun(udp(1), "voip", 1, true)
	voip := []string{"voip"}
	drop := []flow.Rule{{Categories: voip, Action: dropping}, {Action: marking(10)}}
	mark := []flow.Rule{{Action: marking(20)}, {Categories: voip, Action: dropping}}
	k.policy(drop...)
	done := make(chan error)
	go func() {
		var err error
		for n := 0; n < 100 && err == nil; n++ {
			rules := drop
			if n%2 == 0 {
				rules = mark
			}
			err = k.rules.Set(&flow.Policy{Rules: rules})
		}
		done <- err
	}()
	for frame := c.sent(0, 10); ; {
		verdict, out := k.run(progXDP, frame)
		if verdict != xdpDrop && out[15]>>2 != 20 {
			t.Fatalf("returned %d with DSCP %d", verdict, out[15]>>2)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// TestDNSMeetsRules: what has port 53 at either end is never sampled, and has protocol dns from its first packet on. Rules
// that need no verdict act on it, whatever the payload is.
func TestDNSMeetsRules(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	dns, _ := flow.ParseProtocol("dns")
	n := 0
	for what, rule := range map[string]flow.Rule{
		"protocol": {Protocols: []flow.Protocol{dns}, OneSided: true, Action: dropping},
		"port":     {Ports: []flow.PortRange{{First: 53, Last: 53}}, OneSided: true, Action: dropping},
		"host": {Hosts: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32"), netip.MustParsePrefix("2001:db8::1/128")},
			OneSided: true, Action: dropping},
	} {
		k.policy(rule)
		for _, program := range programs {
			for _, c := range []conn{udp(n), tcp(n), udp6(n), tcp6(n)} {
				for _, swap := range []bool{false, true} { // the port is the server's, or the sender's
					c.server = withPort(c.server, 53)
					first := c.sent(syn, 100)
					if swap {
						c.client = withPort(c.client, c.client.Port()+10000)
						first = c.answer(syn, 100)
					}
					if verdict, _ := k.run(program, first); verdict != dropped(program) {
						t.Errorf("%s, %s: a packet of %v returned %d", program, what, c, int32(verdict))
					}
					if r := k.flow(c.key()); r.Protocol != "dns" || r.Dropped != 1 || r.Samples != 0 || r.Category != "" {
						t.Errorf("%s, %s: %+v %+v", program, what, r, r.Live)
					}
				}
			}
			n++
		}
	}
	if n := k.samples(); n != 0 {
		t.Errorf("%d samples", n)
	}
	// The same rule leaves others alone.
	k.policy(flow.Rule{Protocols: []flow.Protocol{dns}, Action: dropping})
	other := udp(99)
	other.server = withPort(other.server, 5353)
	k.pass(progXDP, other.sent(0, 100))
	if r := k.flow(other.key()); r.Protocol != "" {
		t.Errorf("port 5353: protocol %q before a sample was read", r.Protocol)
	}
}
