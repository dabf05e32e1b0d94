// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

const far = 1 << 30 // between sequence numbers of different connections

// numbered is a packet of the client with the connection's sequence numbers moved by seq and ack.
func (c conn) numbered(flags uint8, payload int, seq, ack uint32) []byte {
	spec := c.spec(flags, payload)
	spec.Seq, spec.Ack = 0x01020304+seq, 0x01020305+ack
	return packettest.Ethernet(spec.Build().Data)
}

// back is the same connection seen from its server.
func (c conn) back() conn {
	c.client, c.server = c.server, c.client
	return c
}

var bothFamilies = []func(int) conn{tcp, tcp6}

// TestClosingIsPlausible: a FIN or RST closes a flow only with a sequence number within what its sender has in flight.
func TestClosingIsPlausible(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	n := 0
	for _, family := range bothFamilies {
		for name, test := range map[string]struct {
			seq    uint32
			closes bool
		}{"next": {1, true}, "unseen losses": {50_000, true}, "acknowledged": {1, true}, "a guess": {far, false}, "a guess below": {3 * far, false},
			"beyond the window": {200_000, false}} {
			n++
			c := family(n)
			k.opened(c)
			k.pass(progXDP, c.numbered(rst, 0, test.seq, 0))
			if got := k.flow(c.key()).Ended == "rst"; got != test.closes {
				t.Errorf("RST, %s: closed %v", name, got)
			}
			n++
			c = family(n)
			k.opened(c)
			k.pass(progXDP, c.numbered(fin|ack, 0, test.seq, 0))
			k.pass(progOut, c.back().numbered(fin|ack, 0, test.seq, 0))
			if got := k.flow(c.key()).Ended == "fin"; got != test.closes {
				t.Errorf("FIN, %s: closed %v", name, got)
			}
		}
	}
}

// TestSpoofedPayload: of a connection whose ends both answered, a packet with other numbers is not sampled and changes nothing.
func TestSpoofedPayload(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, family := range bothFamilies {
		c := family(n)
		k.opened(c)
		before, _ := k.entry(c.key())
		for _, numbers := range [][2]uint32{{far, 0}, {far, far}} {
			k.pass(progXDP, c.numbered(ack|psh, 100, numbers[0], numbers[1]))
			if s := k.sample(); s != nil {
				t.Errorf("numbers %v: sampled", numbers)
			}
		}
		if after, _ := k.entry(c.key()); after.State != before.State || after.SideIn.End != before.SideIn.End {
			t.Errorf("state %v and end %d, want %v and %d", after.State, after.SideIn.End, before.State, before.SideIn.End)
		}
		k.pass(progXDP, c.numbered(ack|psh, 100, 0, far))
		if s := k.sample(); s != nil {
			t.Error("sampled although it acknowledges what was never sent")
		}
		k.pass(progXDP, c.sent(ack|psh, 100))
		if s := k.sample(); s == nil {
			t.Error("the real packet is not sampled")
		}
	}
}

// TestSpoofedBeginning: a made-up SYN and payload get nobody's connection dropped: neither before both ends were seen, nor
// through the verdict that they led to.
func TestSpoofedBeginning(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	k.policy(flow.Rule{Categories: []string{"torrent"}, Action: dropping})
	for n, family := range bothFamilies {
		c := family(n)
		k.pass(progXDP, c.numbered(syn, 0, far, 0), c.numbered(ack|psh, 100, far+1, 77))
		if k.sample() == nil {
			t.Fatal("a connection of which one end was seen is not sampled")
		}
		spoofed := k.id(c.key())
		k.decide(spoofed, "torrent", 1, true)
		k.pass(progXDP, c.numbered(ack|psh, 100, far+101, 77))
		// The real connection. Its packets pass, and it is classified by its own.
		k.pass(progXDP, c.sent(syn, 0))
		k.pass(progOut, c.answer(syn|ack, 0))
		k.pass(progXDP, c.sent(ack, 0), c.sent(ack|psh, 100))
		if s := k.sample(); s == nil || s.ID.Generation == spoofed.Generation || s.Index != 0 {
			t.Fatalf("sample %+v: the real connection's packets count for generation %d", s, spoofed.Generation)
		}
		if r := k.flow(c.key()); r.Category != "" || r.Dropped != 0 {
			t.Errorf("%+v", r)
		}
		k.decide(k.id(c.key()), "torrent", 1, true)
		if verdict, _ := k.run(progXDP, c.sent(ack|psh, 100)); verdict != xdpDrop {
			t.Error("its own verdict does not act")
		}
	}
}

// TestDropNeedsBothEnds unless the rule says one_sided: true, or one direction alone is seen.
func TestDropNeedsBothEnds(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{"both": {}, "ingress": {Ingress: true}} {
		k := newKernel(t, cfg, ethernet)
		for n, family := range bothFamilies {
			c := family(n)
			k.pass(progXDP, c.sent(syn, 0))
			k.decide(k.id(c.key()), "torrent", 1, true)
			for _, oneSided := range []bool{false, true} {
				k.policy(flow.Rule{Action: dropping, OneSided: oneSided})
				verdict, _ := k.run(progXDP, c.sent(ack, 0))
				if drops := verdict == xdpDrop; drops != (oneSided || name == "ingress") {
					t.Errorf("%s, one-sided %v: dropped %v", name, oneSided, drops)
				}
			}
		}
	}
}

// TestRuleIsHeld: a rule acts on when its 5-tuple begins again, and no longer than until the new flow's own verdict.
func TestRuleIsHeld(t *testing.T) {
	t.Parallel()
	for _, family := range bothFamilies {
		k := newKernel(t, Config{}, ethernet)
		k.policy(flow.Rule{Categories: []string{"torrent"}, Action: dropping})
		c := k.begun(family(1), "torrent", 1, true)
		drops := func(what string, frame []byte, want bool) {
			t.Helper()
			if verdict, _ := k.run(progXDP, frame); (verdict == xdpDrop) != want {
				t.Errorf("%s: returned %d", what, verdict)
			}
		}
		drops("first", c.sent(ack|psh, 100), true)
		for range 3 {
			before := k.flow(c.key()).Generation
			drops("RST", c.numbered(rst, 0, 1, 0), true)
			drops("SYN", c.sent(syn, 0), true)
			r := k.flow(c.key())
			if r.Generation == before || r.Category != "" || r.Final || !r.Held {
				t.Fatalf("not a new flow without a verdict: %+v %+v", r, r.Live)
			}
			drops("payload", c.sent(ack|psh, 100), true)
		}
		k.decide(k.id(c.key()), "chat", .5, false)
		drops("provisional", c.sent(ack|psh, 100), true)
		k.decide(k.id(c.key()), "chat", 1, true)
		drops("its own", c.sent(ack|psh, 100), false)
		if k.flow(c.key()).Held {
			t.Error("held in spite of its own verdict")
		}
	}
}

// TestEnforcedIsRemembered: a dropped flow that went idle and left the tables, or that was evicted, does not come back as
// one that midstream exempts; but only for some time.
func TestEnforcedIsRemembered(t *testing.T) {
	t.Parallel()
	for _, family := range bothFamilies {
		for _, held := range []time.Duration{time.Hour, 10 * time.Millisecond} {
			cfg := short(time.Millisecond)
			cfg.Timeouts.Held, cfg.MaxPending = held, 64
			k := newKernel(t, cfg, ethernet)
			k.policy(flow.Rule{Categories: []string{"torrent"}, Action: dropping})
			c := k.begun(family(1), "torrent", 1, true)
			if verdict, _ := k.run(progXDP, c.sent(ack, 9)); verdict != xdpDrop {
				t.Fatal("not dropped")
			}
			eventually(t, "the flow goes", func() bool { k.sweep(); return len(k.flows()) == 0 })
			time.Sleep(20 * time.Millisecond) // more than 10 ms
			verdict, _ := k.run(progXDP, c.sent(ack, 9))
			if r := k.flow(c.key()); (verdict == xdpDrop) != (held == time.Hour) || !r.Midstream || r.Category != "" {
				t.Errorf("held for %v: returned %d, %+v", held, verdict, r.Live)
			}
		}
		// A flow with a provisional verdict, evicted by others.
		k := newKernel(t, Config{MaxPending: 64}, ethernet)
		k.policy(flow.Rule{Categories: []string{"torrent"}, Provisional: true, Action: dropping})
		c := k.begun(family(1), "torrent", .9, false)
		if verdict, _ := k.run(progXDP, c.sent(ack, 9)); verdict != xdpDrop {
			t.Fatal("not dropped")
		}
		for n := range 5000 {
			k.pass(progXDP, family(100+n).sent(syn, 0))
		}
		if _, err := k.table.Lookup(c.key()); err == nil {
			t.Fatal("not evicted")
		}
		if verdict, _ := k.run(progXDP, c.sent(ack, 9)); verdict != xdpDrop {
			t.Error("an evicted flow came back and passes")
		}
	}
}

// repeat runs a program on a frame many times in the kernel until stop is closed.
func (k *kernel) repeat(program string, frame []byte, stop chan struct{}) chan error {
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := k.collection.Programs[program].Run(&ebpf.RunOptions{Data: frame, Repeat: 20_000}); err != nil {
				done <- err
				return
			}
		}
	}()
	return done
}

// raceFor is how long a test looks for a race.
const raceFor = 2 * time.Second

// TestPromotionRetiresNothing: a packet that looks for its flow while that moves to the decided ones begins no new one.
func TestPromotionRetiresNothing(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	n := 0
	for until := time.Now().Add(raceFor); time.Now().Before(until) && !t.Failed(); n++ {
		c := udp(n % 10_000)
		if n%2 == 0 {
			c.client, c.server = netip.AddrPortFrom(tcp6(1).client.Addr(), uint16(1024+n%10_000)), tcp6(1).server
		}
		k.pass(progXDP, c.sent(0, 10))
		id := k.id(c.key())
		stop := make(chan struct{})
		done := k.repeat(progXDP, c.sent(0, 10), stop)
		eventually(t, "packets", func() bool { return k.flow(c.key()).Packets > 1 })
		k.decide(id, "chat", 1, true)
		if n%4 == 0 {
			k.sweep()
		}
		close(stop)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r := k.flow(c.key()); r.Generation != id.Generation || r.Category != "chat" {
			t.Errorf("round %d: generation %d became %d, verdict %q", n, id.Generation, r.Generation, r.Category)
		}
		if err := k.deleteDecided(c); err != nil {
			t.Fatal(err)
		}
	}
}

func (k *kernel) deleteDecided(c conn) error {
	if c.client.Addr().Is6() {
		wide, _ := wideKey(c.key())
		return k.maps.Flows6.Delete(wide)
	}
	return k.maps.Flows.Delete(narrowKey(c.key()))
}

// TestNoStaleRule: rules found for an earlier verdict are not stored over those of the last one.
func TestNoStaleRule(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	rules := []flow.Rule{
		{Categories: []string{"chat"}, Provisional: true, Action: passing}, {Categories: []string{"voip"}, Provisional: true, Action: passing},
	}
	for len(rules) < flow.MaxRules { // so that looking them up takes a while
		rules = append(rules, flow.Rule{Categories: []string{"email"}, Action: passing})
	}
	k.policy(rules...)
	for n, c := range []conn{udp(1), {packettest.UDP, tcp6(1).client, tcp6(1).server}} {
		k.pass(progXDP, c.sent(0, 10))
		id := k.id(c.key())
		stop := make(chan struct{})
		done := k.repeat(progXDP, c.sent(0, 10), stop)
		rounds := 0
		for until := time.Now().Add(raceFor / 2); time.Now().Before(until) && !t.Failed(); rounds++ {
			labels := []string{"chat", "voip"}
			if rounds%2 > 0 {
				labels = []string{"voip", "chat"}
			}
			var decisions []flow.Decision
			for _, label := range labels {
				decisions = append(decisions, flow.Decision{ID: id, Verdicts: flow.Verdicts{flow.Category: byModel(label, .5, false)}})
			}
			if _, err := k.table.Apply(decisions); err != nil {
				t.Fatal(err)
			}
			k.pass(progIn, c.sent(0, 10))
			if r, want := k.flow(c.key()), 2-rounds%2; r.Rule != want {
				t.Errorf("flow %d, round %d: rule %d acts on %q, want %d", n, rounds, r.Rule, r.Category, want)
			}
		}
		close(stop)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
