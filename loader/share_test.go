// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// from returns a UDP flow from host n of a network: of 10.0.0.0/8, or of IPv6 networks that each are a /64.
func from(network, n int, ip6 bool) conn {
	addr := netip.AddrFrom4([4]byte{10, byte(network), byte(n >> 8), byte(n)})
	server := netip.MustParseAddrPort("203.0.113.9:443")
	if ip6 {
		addr = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(network >> 8), byte(network), 0, 0, 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n)})
		server = netip.MustParseAddrPort("[2001:db8:ffff::1]:443")
	}
	return conn{packettest.UDP, netip.AddrPortFrom(addr, uint16(1024+n)), server}
}

const ringOfTest = 64 << 10

// used returns how many bytes the samples that fn accepts use in the ring, and empties it.
func (k *kernel) used(fn func(*flow.Sample) bool) (bytes, samples int) {
	k.t.Helper()
	for {
		s := k.sample()
		if s == nil {
			return bytes, samples
		}
		if fn(s) {
			bytes += (len(s.Packet)+int(unsafe.Sizeof(bpfSample{}))+7)/8*8 + 8 // struct bpf_ringbuf_hdr
			samples++
		}
	}
}

// TestRingIsKeptForTwoWayFlows: a flood of one-packet flows of many sources gets half of the ring; flows with packets of both
// ends still get in.
func TestRingIsKeptForTwoWayFlows(t *testing.T) {
	t.Parallel()
	for _, ip6 := range []bool{false, true} {
		k := newKernel(t, Config{RingBytes: ringOfTest, MaxPending: 4096}, ethernet)
		const flood = 1000
		for n := range flood {
			k.pass(progIn, from(n%200, n, ip6).sent(0, 100))
		}
		counters := k.counters()
		if counters["sampled"]+counters["one_way"] != flood || counters["one_way"] == 0 || counters["ring_full"] != 0 {
			t.Errorf("%v", counters)
		}
		both := from(250, 1, ip6)
		both.proto = packettest.TCP
		k.pass(progIn, both.sent(syn, 0))
		k.pass(progOut, both.answer(syn|ack, 0))
		k.pass(progIn, both.sent(ack|psh, 100))
		k.pass(progOut, both.answer(ack|psh, 100))
		for range 2 { // a flow of the flood that is answered is none of the flood any more
			k.pass(progIn, from(0, 800, ip6).sent(0, 100))
			k.pass(progOut, from(0, 800, ip6).answer(0, 100))
		}
		if after := k.counters(); after["sampled"] != counters["sampled"]+2+3 || after["one_way"] != counters["one_way"]+1 {
			t.Errorf("%v", after)
		}
		twoWay := 0
		bytes, _ := k.used(func(s *flow.Sample) bool {
			if s.TwoWay {
				twoWay++
			}
			return !s.TwoWay
		})
		if bytes > ringOfTest/2+300 || bytes < ringOfTest/2-300 || twoWay != 5 {
			t.Errorf("one-way flows use %d bytes of %d, %d samples are of two-way flows", bytes, ringOfTest, twoWay)
		}
	}
}

// TestSourceHasItsShare: a source that floods, with whatever flows, gets less than half of the ring, and others get in.
func TestSourceHasItsShare(t *testing.T) {
	t.Parallel()
	for _, ip6 := range []bool{false, true} {
		for _, config := range []Config{{}, {Ingress: true}} { // with one direction, no flow is known to be one-way
			config.RingBytes, config.MaxPending, config.Samples = ringOfTest, 8192, 1
			k := newKernel(t, config, ethernet)
			hog := func(n int) conn {
				c := from(1, n, ip6)
				if !ip6 { // one address; of IPv6, one /64
					c.client = netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), c.client.Port())
				}
				return c
			}
			for n := range 2000 {
				if c := hog(n); n%2 == 0 {
					k.pass(progIn, c.sent(0, 100))
				} else { // sent to it: the far end is the same
					k.pass(progOut, c.answer(0, 100))
				}
				if n%40 == 0 {
					k.pass(progIn, from(2+n/40, n, ip6).sent(0, 100))
				}
			}
			if counters := k.counters(); counters["source_share"] == 0 || counters["ring_full"] != 0 {
				t.Errorf("%v: %v", config, counters)
			}
			others := 0
			bytes, _ := k.used(func(s *flow.Sample) bool {
				mine := hog(0).client.Addr()
				isHog := s.ID.Key.A.Addr() == mine || s.ID.Key.B.Addr() == mine
				if ip6 {
					prefix := netip.PrefixFrom(mine, 64)
					isHog = prefix.Contains(s.ID.Key.A.Addr()) || prefix.Contains(s.ID.Key.B.Addr())
				}
				if !isHog {
					others++
				}
				return isHog
			})
			if bytes >= ringOfTest/2 || others != 50 {
				t.Errorf("%v: the source uses %d bytes of %d; %d samples of others, want all 50", config, bytes, ringOfTest, others)
			}
			// The ring is empty again: it is free for all.
			for n := range 20 {
				k.pass(progIn, hog(3000+n).sent(0, 100))
			}
			if _, samples := k.used(func(*flow.Sample) bool { return true }); samples != 20 {
				t.Errorf("%d samples of 20 in an empty ring", samples)
			}
		}
	}
}

// TestOneDirectionUsesTheWholeRing: with one direction alone, no flow can be known to have packets of both ends.
func TestOneDirectionUsesTheWholeRing(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{RingBytes: ringOfTest, MaxPending: 4096, Ingress: true}, ethernet)
	for n := range 1000 {
		k.pass(progIn, from(n%200, n, false).sent(0, 100))
	}
	if counters := k.counters(); counters["one_way"] != 0 || counters["ring_full"] == 0 {
		t.Errorf("%v", counters)
	}
	if s := k.sample(); s == nil || !s.TwoWay {
		t.Errorf("sample %+v", s)
	}
}

// TestCrowdLeavesOthersIn: a flood fills the table of undecided flows again and again, with a sweep between, and pushes no
// other flow out.
func TestCrowdLeavesOthersIn(t *testing.T) {
	t.Parallel()
	const size, waves, wave = 4096, 8, 2600 // together, more than five times what the table holds
	for _, ip6 := range []bool{false, true} {
		for what, network := range map[string]func(wave int) int{ // of the flood's flow
			"one source":   func(int) int { return 1 },
			"many sources": func(n int) int { return 20 + n%200 },
		} {
			k := newKernel(t, Config{MaxPending: size, Samples: -1}, ethernet)
			twoWay, silent := from(2, 1, ip6), from(3, 1, ip6)
			k.pass(progIn, twoWay.sent(0, 10))
			k.pass(progOut, twoWay.answer(0, 10))
			k.pass(progIn, silent.sent(0, 10))
			first, second := k.id(twoWay.key()), k.id(silent.key())
			for n := range waves * wave {
				c := from(network(n), n, ip6)
				if !ip6 && what == "one source" {
					c.client = netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), c.client.Port())
				}
				k.pass(progIn, c.sent(0, 10))
				if n%wave != wave-1 {
					continue
				}
				k.sweep()
				if left := len(k.flows()); left > size/crowdOneWay+2 || what == "one source" && left > size/crowdShare+2 {
					t.Errorf("%s: %d flows are left in a table of %d", what, left, size)
				}
			}
			if r := k.flow(twoWay.key()); r.Generation != first.Generation || r.Packets != 2 {
				t.Errorf("%s: the two-way flow began again: %+v", what, r.Live)
			}
			if what == "one source" {
				if r := k.flow(silent.key()); r.Generation != second.Generation {
					t.Errorf("%s: the flow of another source began again: %+v", what, r.Live)
				}
			}
			if evicted := k.evicted(); evicted < waves*wave-size {
				t.Errorf("%s: %d flows left without a record, %d were counted", what, waves*wave-size, evicted)
			}
		}
	}
}
