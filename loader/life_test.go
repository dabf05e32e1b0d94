// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	psh = 0x08
	ack = 0x10
)

// conn is a connection; its client sorts before or after its server.
type conn struct {
	proto          uint8
	client, server netip.AddrPort
}

// tcp and udp return a connection of its own for each number.
func tcp(n int) conn {
	return conn{packettest.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 14), 9}), uint16(1024+n&0x3fff)),
		netip.MustParseAddrPort("203.0.113.9:443")}
}

func udp(n int) conn {
	c := tcp(n)
	c.proto = packettest.UDP
	return c
}

func tcp6(n int) conn {
	return conn{packettest.TCP, netip.AddrPortFrom(netip.MustParseAddr("2001:db8::9"), uint16(1024+n)),
		netip.MustParseAddrPort("[2001:db8::1]:443")}
}

func udp6(n int) conn {
	c := tcp6(n)
	c.proto = packettest.UDP
	return c
}

func (c conn) key() flow.Key {
	key, _ := flow.MakeKey(flow.Proto(c.proto), c.client, c.server, 0)
	return key
}

func (c conn) spec(flags uint8, payload int) packettest.Spec {
	return packettest.Spec{IPv6: c.client.Addr().Is6(), Proto: c.proto, TCPFlags: flags, Payload: payload, Src: c.client, Dst: c.server}
}

// sent is a packet of the client, answer one of the server.
func (c conn) sent(flags uint8, payload int) []byte {
	return packettest.Ethernet(c.spec(flags, payload).Build().Data)
}

func (c conn) answer(flags uint8, payload int) []byte {
	c.client, c.server = c.server, c.client
	return c.sent(flags, payload)
}

func TestBothDirectionsAreOneFlow(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, in := range []string{progXDP, progIn} {
		for _, c := range []conn{tcp(n), tcp6(n)} {
			k.pass(in, c.sent(syn, 0))
			k.pass(progOut, c.answer(syn|ack, 0))
			k.pass(in, c.sent(ack, 0), c.sent(ack|psh, 100))
			r := k.flow(c.key())
			header := uint64(40)
			if c.client.Addr().Is6() {
				header = 60
			}
			if r.Key() != c.key() || r.Src != c.client.Addr() || r.SrcPort != c.client.Port() || r.PacketsIn != 3 ||
				r.BytesIn != 3*header+100 || r.PacketsOut != 1 || r.BytesOut != header || r.Midstream || r.Ended != "" || r.Samples != 1 {
				t.Errorf("%+v %+v", r, r.Live)
			}
		}
	}
	if n := len(k.flows()); n != 4 {
		t.Errorf("%d flows", n)
	}
}

func TestMidstream(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	k.pass(progXDP, tcp(1).sent(ack, 10), udp(1).sent(0, 10))
	if !k.flow(tcp(1).key()).Midstream || k.flow(udp(1).key()).Midstream {
		t.Error("midstream is TCP without a SYN, and only that")
	}
}

func TestEndsAndKeysUsedAgain(t *testing.T) {
	t.Parallel()
	for want, last := range map[string][2]uint8{"fin": {fin | ack, fin | ack}, "rst": {ack, rst}} {
		for _, decided := range []bool{false, true} {
			k := newKernel(t, Config{}, ethernet)
			c := tcp(1)
			k.pass(progXDP, c.sent(syn, 0), c.sent(ack|psh, 100))
			first := k.id(c.key())
			if decided {
				k.decide(first, "voip", 1, true)
			}
			// A SYN on a live flow never resets it.
			k.pass(progXDP, c.sent(syn, 0))
			if r := k.flow(c.key()); r.Generation != first.Generation || r.Packets != 3 || r.Ended != "" {
				t.Fatalf("SYN on a live flow: %+v", r.Live)
			}
			k.pass(progXDP, c.sent(last[0], 0))
			if r := k.flow(c.key()); r.Ended != "" {
				t.Fatalf("ended %q after one direction's end", r.Ended)
			}
			k.pass(progOut, c.answer(last[1], 0))
			if r := k.flow(c.key()); r.Ended != want || r.Packets != 5 {
				t.Fatalf("ended %q, want %q; %d packets", r.Ended, want, r.Packets)
			}
			// What comes after the end still belongs to the flow.
			k.pass(progXDP, c.sent(ack, 0))
			if r := k.flow(c.key()); r.Generation != first.Generation || r.Packets != 6 {
				t.Fatalf("ACK after the end: %+v", r.Live)
			}
			k.pass(progXDP, c.sent(syn, 0))
			r := k.flow(c.key())
			if r.Generation == first.Generation || r.Packets != 1 || r.Samples != 0 || r.Ended != "" || r.Category != "" || r.Final {
				t.Fatalf("SYN on an ended key: %+v %+v", r, r.Live)
			}
			if n := len(k.flows()); n != 1 {
				t.Fatalf("%d flows", n)
			}
			ended := k.ended()
			if len(ended) != 1 || ended[0].Ended != want || ended[0].Packets != 6 || ended[0].Generation != first.Generation ||
				ended[0].Key() != c.key() || ended[0].Final != decided {
				t.Fatalf("ended flows: %+v", ended)
			}
			if reported := k.sweep(); len(reported) != 1 || len(k.sweep()) != 0 {
				t.Fatalf("reported %v", reported)
			}
		}
	}
}

// TestClosedFlowGoes: an ended flow is reported once and goes when it was visible long enough.
func TestClosedFlowGoes(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Timeouts: Timeouts{Ended: time.Millisecond}}, ethernet)
	c := tcp(1)
	k.pass(progXDP, c.sent(syn, 0), c.answer(rst|ack, 0))
	reported := 0
	eventually(t, "the flow goes", func() bool {
		reported += len(k.sweep())
		return len(k.flows()) == 0
	})
	if reported != 1 || len(k.sweep()) != 0 || len(k.ended()) != 1 {
		t.Errorf("reported %d times", reported)
	}
}

func short(ended time.Duration) Config {
	const d = 50 * time.Millisecond
	return Config{Timeouts: Timeouts{TCPOpening: d, TCPEstablished: d, UDPSingle: d, UDPStream: d, Ended: ended}}
}

func TestIdleFlowsEnd(t *testing.T) {
	t.Parallel()
	k := newKernel(t, short(time.Millisecond), ethernet)
	k.pass(progXDP, tcp(1).sent(syn, 0), udp(2).sent(0, 9), tcp(3).sent(syn, 0), udp(4).sent(0, 9), tcp6(5).sent(syn, 0))
	k.pass(progOut, tcp(3).answer(syn|ack, 0), udp(4).answer(0, 9))
	k.decide(k.id(tcp(3).key()), "voip", 1, true)
	reported := map[flow.Key]int{}
	eventually(t, "the flows go", func() bool {
		for _, r := range k.sweep() {
			reported[r.Key()]++
			if r.Ended != "idle" {
				t.Errorf("ended %q", r.Ended)
			}
		}
		return len(k.flows()) == 0
	})
	if len(reported) != 5 {
		t.Errorf("reported %v", reported)
	}
	for key, n := range reported {
		if n != 1 {
			t.Errorf("flow %q is reported %d times", key, n)
		}
	}
}

// TestTimedOutKeys: what begins a new flow on a key that is timed out, before and after the sweep.
func TestTimedOutKeys(t *testing.T) {
	t.Parallel()
	for _, swept := range []bool{false, true} {
		k := newKernel(t, short(time.Hour), ethernet)
		opened, silent, datagrams := tcp(1), tcp(2), udp(3)
		k.pass(progXDP, opened.sent(syn, 0), silent.sent(syn, 0), datagrams.sent(0, 9))
		first := map[conn]uint32{}
		for _, c := range []conn{opened, silent, datagrams} {
			first[c] = k.flow(c.key()).Generation
		}
		eventually(t, "time-out", func() bool {
			for c := range first {
				if k.flow(c.key()).Ended != "idle" {
					return false
				}
			}
			return true
		})
		if swept {
			if n := len(k.sweep()); n != 3 {
				t.Fatalf("%d flows reported", n)
			}
		}
		k.pass(progXDP, opened.sent(syn, 0), silent.sent(ack, 0), datagrams.sent(0, 9))
		for c, generation := range first {
			// A connection that was only silent continues, until the sweep has ended it.
			goesOn := c == silent && !swept
			r := k.flow(c.key())
			if goesOn != (r.Generation == generation) || goesOn != (r.Packets == 2) {
				t.Errorf("swept %v, %q: %+v", swept, c.key(), r.Live)
			}
			if c == silent && swept && !r.Midstream {
				t.Errorf("%q is not midstream after its time-out", c.key())
			}
		}
	}
}

func (k *kernel) decide(id flow.ID, category string, confidence float64, final bool) {
	k.t.Helper()
	stale, err := k.table.Apply([]flow.Decision{{ID: id, Settled: final, Verdicts: flow.Verdicts{
		flow.Category: {Label: category, Confidence: confidence, Source: flow.SourceModel, Model: "m", Final: final}}}})
	if err != nil || stale != 0 {
		k.t.Fatalf("verdict on %q: stale %d, %v", id.Key, stale, err)
	}
}

func TestStaleVerdict(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := tcp(1)
	k.pass(progXDP, c.sent(syn, 0))
	id := k.id(c.key())
	old := flow.ID{Key: id.Key, Generation: id.Generation + 1}
	gone := flow.ID{Key: tcp(2).key(), Generation: 1}
	verdict := flow.Verdicts{flow.Category: {Label: "chat", Confidence: 1, Source: flow.SourceModel, Final: true}}
	stale, err := k.table.Apply([]flow.Decision{{ID: old, Verdicts: verdict}, {ID: gone, Verdicts: verdict}})
	if err != nil || stale != 2 {
		t.Errorf("stale %d, %v", stale, err)
	}
	if n := k.counters()["stale_verdict"]; n != 2 {
		t.Errorf("counted %d", n)
	}
	if r := k.flow(c.key()); r.Category != "" || r.Final {
		t.Errorf("a stale verdict was stored: %+v", r)
	}
}

// TestPromotionLosesNothing: packets are counted on all CPUs while verdicts move their flows.
func TestPromotionLosesNothing(t *testing.T) {
	t.Parallel()
	const flows, packets, workers = 20, 2000, 3
	k := newKernel(t, Config{Samples: -1}, ethernet)
	for n := range flows {
		k.pass(progXDP, udp(n).sent(0, 10))
	}
	var work sync.WaitGroup
	for range workers {
		work.Go(func() {
			for n := range packets {
				frame := udp(n%flows).sent(0, 10)
				if _, err := k.programAt(hook{program: progXDP}).Run(&ebpf.RunOptions{Data: frame}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := range flows {
		id := k.id(udp(n).key())
		k.decide(id, "chat", .5, false)
		k.decide(id, "chat", .9, true)
		k.sweep()
	}
	work.Wait()
	k.sweep()
	k.sweep() // the first one only sees the flow that moved last
	for n := range flows {
		f, decided := k.entry(udp(n).key())
		want := uint64(1 + workers*packets/flows)
		if !decided || f.PacketsIn != want || f.BytesIn != want*38 {
			t.Errorf("flow %d: decided %v, %d packets, %d bytes, want %d", n, decided, f.PacketsIn, f.BytesIn, want)
		}
	}
	if n := len(k.flows()); n != flows {
		t.Errorf("%d flows", n)
	}
}

// TestFlood: new flows take no decided one out.
func TestFlood(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{MaxFlows: 64, MaxPending: 256}, ethernet)
	for n := range 20 {
		k.pass(progXDP, udp(n).sent(0, 10))
		k.decide(k.id(udp(n).key()), "voip", 1, true)
	}
	for n := range 5000 {
		k.pass(progXDP, udp(100+n).sent(0, 10))
	}
	for n := range 20 {
		if r := k.flow(udp(n).key()); r.Category != "voip" || !r.Final || r.Packets != 1 {
			t.Errorf("flow %d: %+v", n, r)
		}
	}
	if n := k.counters()["table_full"]; n != 0 {
		t.Errorf("table_full is %d", n)
	}
}

// TestSampleBudget: the first payload packets of a flow, of both directions, and none once it is decided.
func TestSampleBudget(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: 3}, ethernet)
	c := tcp(1)
	take := func(what string, want ...int) {
		t.Helper()
		k.pass(progXDP, c.sent(ack, 0), c.sent(ack|psh, 10))
		k.pass(progOut, c.answer(ack|psh, 10))
		k.pass(progXDP, c.sent(ack|psh, 10), c.sent(ack|psh, 10), c.sent(ack|psh, 10))
		for _, index := range want {
			if s := k.sample(); s == nil || s.Index != index {
				t.Fatalf("%s: sample %+v, want index %d", what, s, index)
			}
		}
		if n := k.samples(); n != 0 {
			t.Fatalf("%s: %d samples more", what, n)
		}
	}
	take("first", 0, 1, 2)
	take("budget spent")
	id := k.id(c.key())
	if err := k.table.Resample([]flow.ID{id}); err != nil {
		t.Fatal(err)
	}
	take("one was shed", 2)
	if err := k.table.ResampleAll(); err != nil {
		t.Fatal(err)
	}
	take("all again", 0, 1, 2)
	if err := k.table.Resample([]flow.ID{{Key: id.Key, Generation: id.Generation + 1}}); err != nil {
		t.Fatal(err)
	}
	take("another generation's")
	k.decide(id, "chat", 1, true)
	if err := k.table.ResampleAll(); err != nil {
		t.Fatal(err)
	}
	take("decided")

	none := newKernel(t, Config{Samples: -1}, ethernet)
	none.pass(progXDP, c.sent(ack|psh, 10))
	if none.samples() != 0 {
		t.Error("sampled without a budget")
	}
}

// TestVLANInTheKey: where asked for, tags tell flows apart.
func TestVLANInTheKey(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{VLAN: true}, ethernet)
	for _, c := range []conn{tcp(1), tcp6(1)} {
		for tags, want := range map[[2]uint16]uint32{{}: 0, {0x8100}: 100, {0x88a8, 0x8100}: 100<<12 | 101} {
			list := tags[:]
			for len(list) > 0 && list[len(list)-1] == 0 {
				list = list[:len(list)-1]
			}
			frame := packettest.Ethernet(c.spec(ack|psh, 10).Build().Data, list...)
			for _, program := range programs {
				k.pass(program, frame)
			}
			key := c.key()
			key.VLAN = want
			if r := k.flow(key); r.Packets != 3 || r.VLAN != want {
				t.Errorf("tags %v: %+v", list, r)
			}
			if s := k.sample(); s == nil || s.ID.Key != key {
				t.Errorf("tags %v: sample %+v", list, s)
			}
			k.samples()
		}
	}
}

// TestFullRing: a sample that does not fit is counted, and the flow's next packet is tried.
func TestFullRing(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{RingBytes: 4096}, ethernet)
	for n := range 4 {
		k.pass(progXDP, udp(n).sent(0, 1400))
	}
	counters := k.counters()
	if counters["sampled"] == 4 || counters["sampled"]+counters["ring_full"]+counters["one_way"] != 4 {
		t.Fatalf("counted %v", counters)
	}
	k.samples()
	k.pass(progXDP, udp(3).sent(0, 1400))
	if s := k.sample(); s == nil || s.ID.Key != udp(3).key() || s.Index != 0 {
		t.Errorf("sample %+v", s)
	}
}
