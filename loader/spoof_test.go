// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

const (
	first = 0x01020304 // sequence number of both ends
	far   = 1 << 30    // between sequence numbers of different connections
	zero  = 1<<32 - first
)

// numbered is a packet of the client with the connection's sequence numbers moved by seq and ack.
func (c conn) numbered(flags uint8, payload int, seq, ack uint32) []byte {
	spec := c.spec(flags, payload)
	spec.Seq, spec.Ack = first+seq, first+1+ack
	p := spec.Build()
	if seq == zero { // Build writes a number of its own
		binary.BigEndian.PutUint32(p.Data[p.L4+4:], 0)
	}
	return packettest.Ethernet(p.Data)
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

// TestClosingOnTheWay: of an endpoint that has much in flight, a RST or FIN may have the number of any byte that the
// other end has not acknowledged.
func TestClosingOnTheWay(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, test := range []struct {
		seq    uint32
		closes bool
	}{{1001, true}, {100_000, true}, {300_000, true}, {100, false}, {500_000, false}} {
		for _, family := range bothFamilies {
			c := family(n)
			k.opened(c)
			k.pass(progXDP, c.numbered(ack, 1000, 1, 0))
			k.pass(progOut, c.back().numbered(ack, 0, 1, 1000)) // acknowledges up to 1001
			k.pass(progXDP, c.numbered(ack, 1000, 300_000, 0))
			k.pass(progXDP, c.numbered(rst, 0, test.seq, 0))
			if got := k.flow(c.key()).Ended == "rst"; got != test.closes {
				t.Errorf("number %d: closed %v", test.seq, got)
			}
		}
	}
}

// TestRefusal: an endpoint that has not sent anything closes a connection if it answers what the other one has sent.
func TestRefusal(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, test := range []struct {
		flags    uint8
		seq, ack uint32
		sent     bool // the endpoint has sent something before
		closes   bool
	}{
		{rst | ack, zero, 0, false, true}, {rst | ack, zero, far, false, false}, // as a closed port refuses
		{rst | ack, zero, 0, true, true}, {rst | ack, zero, 1, true, false},
		{rst | ack, 5, 0, false, true}, {rst | ack, 5, far, false, false}, // as some firewalls do
		{rst, far, 0, false, false},
	} {
		for _, family := range bothFamilies {
			c := family(n)
			k.pass(progXDP, c.numbered(syn, 0, 0, 0), c.numbered(ack, 0, 1, 0)) // the second one says what it expects
			if test.sent {
				k.pass(progOut, c.back().numbered(syn|ack, 0, 0, 0))
			}
			k.pass(progOut, c.back().numbered(test.flags, 0, test.seq, test.ack))
			if got := k.flow(c.key()).Ended == "rst"; got != test.closes {
				t.Errorf("%+v: closed %v", test, got)
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
			if name == "ingress" {
				continue
			}
			// The server has answered, but who sends as the client has not seen that.
			k.policy(flow.Rule{Action: dropping})
			c = family(10 + n)
			k.pass(progXDP, c.numbered(syn, 0, 0, 0))
			k.decide(k.id(c.key()), "torrent", 1, true)
			k.pass(progOut, c.back().numbered(syn|ack, 0, 0, 0))
			k.pass(progXDP, c.numbered(ack|psh, 100, 1, far))
			if verdict, _ := k.run(progXDP, c.numbered(ack, 0, 1, 0)); verdict != xdpDrop {
				t.Error("both ends have answered: not dropped")
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
		// An operator's verdict ends it, and so does that no model will give a better one.
		for n, decide := range []func(flow.ID) error{
			func(id flow.ID) error {
				return k.table.SetVerdicts(id.Key, flow.Verdicts{flow.Category: byOperator("chat")})
			},
			func(id flow.ID) error {
				_, err := k.table.Apply([]flow.Decision{{ID: id, Settled: true, Verdicts: flow.Verdicts{flow.Category: byModel("chat", .5, false)}}})
				return err
			},
		} {
			c := k.begun(family(10+n), "torrent", 1, true)
			drops("RST", c.numbered(rst, 0, 1, 0), true)
			drops("SYN", c.sent(syn, 0), true)
			if err := decide(k.id(c.key())); err != nil {
				t.Fatal(err)
			}
			drops("another verdict", c.sent(ack|psh, 100), false)
			if k.flow(c.key()).Held {
				t.Errorf("way %d: held in spite of its own verdict", n)
			}
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
			if held != time.Hour {
				continue
			}
			// What it had last counts, and a flow that was not dropped leaves nothing.
			corrected, other := k.begun(family(2), "torrent", 1, true), k.begun(family(3), "chat", 1, true)
			if verdict, _ := k.run(progXDP, corrected.sent(ack, 9)); verdict != xdpDrop {
				t.Fatal("not dropped")
			}
			if err := k.table.SetVerdicts(corrected.key(), flow.Verdicts{flow.Category: byOperator("chat")}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the flows go", func() bool { k.sweep(); return len(k.flows()) == 0 })
			k.pass(progXDP, corrected.sent(ack, 9), other.sent(ack, 9))
			if r := k.flow(other.key()); r.Held {
				t.Errorf("held without a drop: %+v", r.Live)
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

// interrupt has a timer interrupt the calling thread very often: programs then stop at many
// places, and others come in between. The function that it returns ends that.
func interrupt(t testing.TB) func() {
	runtime.LockOSThread()
	timer := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: 10_000 /* ns */}
	timer.Size = uint32(unsafe.Sizeof(timer))
	fd, err := unix.PerfEventOpen(&timer, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		t.Logf("races are rarer without perf events: %v", err)
		return runtime.UnlockOSThread
	}
	return func() {
		unix.Close(fd)
		runtime.UnlockOSThread()
	}
}

// repeat runs a program on a frame many times in the kernel until stop is closed.
func (k *kernel) repeat(program string, frame []byte, stop chan struct{}) chan error {
	done := make(chan error, 1)
	go func() {
		defer interrupt(k.t)()
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := k.programAt(hook{program: program}).Run(&ebpf.RunOptions{Data: frame, Repeat: 20_000}); err != nil {
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
	for _, c := range []conn{udp(1), {packettest.UDP, tcp6(1).client, tcp6(1).server}} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		k.pass(progXDP, c.sent(0, 10))
		stop := make(chan struct{})
		done := k.repeat(progXDP, c.sent(0, 10), stop)
		rounds, last := 0, uint32(0)
		for until := time.Now().Add(raceFor); time.Now().Before(until) && !t.Failed(); rounds++ {
			var id flow.ID
			for id.Generation == 0 || id.Generation == last { // until a packet begins it again
				if r, err := k.table.Lookup(c.key()); err == nil && r.Category == "" {
					id = flow.ID{Key: c.key(), Generation: r.Generation}
				}
			}
			last = id.Generation
			// With the second operation, the pending entry goes at once too.
			_, err := k.table.inbox.run(1+rounds%2, func(n int, op *bpfOp) error {
				op.Key, op.Family = wideKey(c.key())
				op.Generation, op.Kind = id.Generation, bpfOpKindOpMerge
				if n > 0 {
					return nil
				}
				op.Kind = bpfOpKindOpVerdict
				return k.table.fillVerdicts(op, &flow.Verdicts{flow.Category: byModel("chat", 1, true)})
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r := k.flow(c.key()); r.Generation != id.Generation || r.Category != "chat" {
				t.Errorf("round %d: generation %d became %d, verdict %q", rounds, id.Generation, r.Generation, r.Category)
			}
			if rounds%2 > 0 && !t.Failed() { // a packet may just be making another entry part of the flow
				eventually(t, "one flow", func() bool { return k.pendingGeneration(c) == 0 || k.pendingGeneration(c) == id.Generation })
			}
			if err := k.deleteDecided(c); err != nil && !t.Failed() {
				t.Errorf("round %d: the decided flow has left its table: %v", rounds, err)
			}
		}
		close(stop)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// pendingGeneration is that of the flow's entry among the undecided ones, 0 if there is none.
func (k *kernel) pendingGeneration(c conn) uint32 {
	var f bpfFlow
	wide, family := wideKey(c.key())
	if family == 4 {
		_ = k.maps.Pending.Lookup(narrowKey(c.key()), &f)
	} else {
		_ = k.maps.Pending6.Lookup(wide, &f)
	}
	return f.Generation
}

func (k *kernel) deleteDecided(c conn) error {
	if c.client.Addr().Is6() {
		wide, _ := wideKey(c.key())
		return k.maps.Flows6.Delete(wide)
	}
	return k.maps.Flows.Delete(narrowKey(c.key()))
}

// TestNoStaleRule: rules found for an earlier verdict are not stored over those of the last one, and a packet never acts by
// one task's new verdict and the other's old one.
func TestNoStaleRule(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	rules := []flow.Rule{
		{Categories: []string{"chat"}, Apps: []string{"icq"}, Provisional: true, Action: passing},
		{Categories: []string{"voip"}, Apps: []string{"skype"}, Provisional: true, Action: passing},
		{Categories: []string{"chat", "voip"}, Provisional: true, Action: passing}, // chat by skype, voip by icq
	}
	for len(rules) < flow.MaxRules { // so that looking them up takes a while
		rules = append(rules, flow.Rule{Categories: []string{"email"}, Action: passing})
	}
	k.policy(rules...)
	defer interrupt(t)() // not while the kernel verifies programs
	for n, c := range []conn{udp(1), {packettest.UDP, tcp6(1).client, tcp6(1).server}} {
		k.pass(progXDP, c.sent(0, 10))
		id := k.id(c.key())
		stop := make(chan struct{})
		done := k.repeat(progXDP, c.sent(0, 10), stop)
		rounds := 0
		for until := time.Now().Add(raceFor / 2); time.Now().Before(until) && !t.Failed(); rounds++ {
			// Many changes, so that one of them comes while a packet looks up the rules.
			var decisions []flow.Decision
			for n := range 16 + rounds%2 {
				verdicts := flow.Verdicts{flow.Category: byModel("chat", .5, false), flow.App: byModel("icq", .5, false)}
				if n%2 > 0 {
					verdicts = flow.Verdicts{flow.Category: byModel("voip", .5, false), flow.App: byModel("skype", .5, false)}
				}
				decisions = append(decisions, flow.Decision{ID: id, Verdicts: verdicts})
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
		_, stats, err := k.rules.Policy()
		if err != nil {
			t.Fatal(err)
		}
		if stats[2].Packets > 0 {
			t.Errorf("flow %d: %d packets acted by half of a change", n, stats[2].Packets)
		}
	}
}
