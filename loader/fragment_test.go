// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// datagram returns the frames of a UDP datagram in fragments with 800 bytes of it each. The
// number says which datagram between the two hosts it is.
func (c conn) datagram(number uint32, payload int) (frames [][]byte) {
	packet := c.spec(0, payload).Build()
	header, rest := packet.Data[:packet.L4], packet.Data[packet.L4:]
	const each = 800
	for offset := 0; offset < len(rest); offset += each {
		part := rest[offset:min(offset+each, len(rest))]
		more := uint16(0)
		if offset+each < len(rest) {
			more = 1
		}
		var fragment []byte
		if c.client.Addr().Is4() {
			fragment = append(append(fragment, header...), part...)
			binary.BigEndian.PutUint16(fragment[2:], uint16(len(fragment)))
			binary.BigEndian.PutUint16(fragment[4:], uint16(number))
			binary.BigEndian.PutUint16(fragment[6:], more<<13|uint16(offset/8))
			clear(fragment[10:12])
			binary.BigEndian.PutUint16(fragment[10:], checksum(fragment[:len(header)]))
		} else {
			fragment = append(append(append(fragment, header...), header[6], 0), binary.BigEndian.AppendUint16(nil, uint16(offset)|more)...)
			fragment = append(binary.BigEndian.AppendUint32(fragment, number), part...)
			fragment[6] = packettest.FragmentExt
			binary.BigEndian.PutUint16(fragment[4:], uint16(len(fragment)-40))
		}
		frames = append(frames, packettest.Ethernet(fragment))
	}
	return frames
}

// which runs a program on frames and returns which of them pass.
func (k *kernel) which(program string, frames ...[]byte) (pass []bool) {
	k.t.Helper()
	for _, frame := range frames {
		verdict, _ := k.run(program, frame)
		if verdict != passed(program) && verdict != dropped(program) {
			k.t.Fatalf("%s: returned %d", program, int32(verdict))
		}
		pass = append(pass, verdict == passed(program))
	}
	return pass
}

func all(pass []bool, want bool) bool {
	for _, p := range pass {
		if p != want {
			return false
		}
	}
	return true
}

func ipBytes(frames ...[]byte) (n uint64) {
	for _, frame := range frames {
		n += uint64(len(frame) - 14)
	}
	return n
}

// TestFragmentsOfDropped: a datagram is dropped as a whole, and counted so. What the rule does not act on passes, and so
// does everything once the policy is another one.
func TestFragmentsOfDropped(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, program := range programs {
		for _, c := range []conn{udp(n), udp6(n)} {
			other := c
			other.client = netip.AddrPortFrom(c.client.Addr(), 5000)
			other.server = netip.AddrPortFrom(c.server.Addr(), 5001)
			k.policy(flow.Rule{Categories: []string{"torrent"}, Action: dropping})
			k.begun(c, "torrent", 1, true)
			frames := c.datagram(77, 3000)
			if pass := k.which(program, frames...); len(frames) != 4 || !all(pass, false) {
				t.Errorf("%s, %v: fragments passed: %v", program, c.client, pass)
			}
			// The last fragment may come more than once.
			if pass := k.which(program, frames[3], frames[1]); !all(pass, false) {
				t.Errorf("%s, %v: fragments passed again: %v", program, c.client, pass)
			}
			_, stats, err := k.rules.Policy()
			bytes := ipBytes(append(frames, frames[3], frames[1])...)
			if want := (RuleStats{Packets: 6, Bytes: bytes, Dropped: 6, DroppedBytes: bytes}); err != nil || stats[0] != want {
				t.Errorf("%s: %+v, want %+v, %v", program, stats, want, err)
			}
			before := k.counters()["fragment"]
			for what, datagram := range map[string][][]byte{
				"another number": c.datagram(78, 3000)[1:], "another flow": other.datagram(79, 3000),
				"the other direction": conn{c.proto, c.server, c.client}.datagram(77, 3000)[1:],
			} {
				if pass := k.which(program, datagram...); !all(pass, true) {
					t.Errorf("%s, %s: %v", program, what, pass)
				}
			}
			if got := k.counters()["fragment"] - before; got != 9 {
				t.Errorf("%d later fragments counted as passed, want 9", got)
			}
			// The hosts use the number again, for a datagram that passes.
			if pass := k.which(program, other.datagram(77, 3000)...); !all(pass, true) {
				t.Errorf("%s: number used again: %v", program, pass)
			}
			k.which(program, frames[0])
			k.policy(flow.Rule{Categories: []string{"torrent"}, Action: passing})
			if pass := k.which(program, frames[1:]...); !all(pass, true) {
				t.Errorf("%s: dropped for an earlier policy: %v", program, pass)
			}
		}
	}
}

// TestFragmentsBeforeTheFirst pass: nothing is known about them yet.
func TestFragmentsBeforeTheFirst(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := k.begun(udp(1), "torrent", 1, true)
	k.policy(flow.Rule{Action: dropping})
	frames := c.datagram(1, 2000)
	frames = append(frames[1:], frames[0], frames[1])
	pass := k.which(progXDP, frames...)
	if !all(pass[:2], true) || !all(pass[2:], false) {
		t.Error(pass)
	}
}

// TestFragmentsTimeOut: the number of a dropped datagram means another one later.
func TestFragmentsTimeOut(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := k.begun(udp(1), "torrent", 1, true)
	k.policy(flow.Rule{Action: dropping})
	frames := c.datagram(1, 2000)
	if pass := k.which(progXDP, frames...); !all(pass, false) {
		t.Fatal(pass)
	}
	tick, err := tickLength()
	if err != nil {
		t.Fatal(err)
	}
	age := func(by time.Duration) {
		var key bpfDatagramKey
		var value bpfDroppedDatagram
		if err := k.maps.Fragments.NextKey(nil, &key); err != nil {
			t.Fatal(err)
		}
		if err := k.maps.Fragments.Lookup(&key, &value); err != nil {
			t.Fatal(err)
		}
		value.Jiffies -= uint64(by) / tick
		if err := k.maps.Fragments.Put(&key, &value); err != nil {
			t.Fatal(err)
		}
	}
	age(20 * time.Second)
	if pass := k.which(progXDP, frames[1:]...); !all(pass, false) {
		t.Error("20 s later", pass)
	}
	age(11 * time.Second)
	if pass := k.which(progXDP, frames[1:]...); !all(pass, true) {
		t.Error("31 s later", pass)
	}
}

// TestFragmentsPoliced: a datagram is charged once, with all of its bytes, and passes or is dropped as a whole. A flow of
// large datagrams gets no more of a bucket than others.
func TestFragmentsPoliced(t *testing.T) {
	t.Parallel()
	for _, scope := range []flow.Scope{flow.ScopeClass, flow.ScopeFlow} {
		k := newKernel(t, Config{Samples: -1}, ethernet)
		for _, c := range []conn{udp(1), udp6(1)} {
			k.begun(c, "streaming", 1, true)
			for _, program := range programs[1:] {
				// Nothing is refilled in the test. The datagram that exceeds the burst still passes.
				size := ipBytes(c.datagram(0, 3000)...)
				action := flow.Action{Rate: 80, Burst: 4*size + size/2, Scope: scope, DSCP: -1}
				k.fresh(flow.Rule{Categories: []string{"streaming"}, Action: action})
				datagrams := 0
				for n := range uint32(20) {
					pass := k.which(program, c.datagram(n, 3000)...)
					if !all(pass, pass[0]) {
						t.Fatalf("datagram %d in parts: %v", n, pass)
					}
					if pass[0] {
						datagrams++
					}
				}
				if datagrams != 5 {
					t.Errorf("scope %d, %s, %v: %d datagrams of %d bytes passed, want 5", scope, program, c.client, datagrams, size)
				}
				_, stats, _ := k.rules.Policy()
				if stats[0].Dropped != 15*4 || stats[0].DroppedBytes != 15*size {
					t.Errorf("%+v, want %d packets of %d bytes dropped", stats[0], 15*4, 15*size)
				}
			}
		}
	}
}

// TestProtectedFragments: a protected flow's datagrams pass as a whole.
func TestProtectedFragments(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := k.begun(udp(1), "torrent", 1, true)
	err := k.rules.Set(&flow.Policy{Rules: []flow.Rule{{Action: dropping}}, Ports: []flow.PortProtect{{Proto: flow.UDP, Port: c.server.Port()}}})
	if err != nil {
		t.Fatal(err)
	}
	if pass := k.which(progXDP, c.datagram(1, 3000)...); !all(pass, true) {
		t.Error(pass)
	}
}

// TestUnparsed: TCP and UDP packets that cannot be read pass, or are dropped if the policy says so; all else always passes.
func TestUnparsed(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	cut := func(spec packettest.Spec, length int) []byte { // a first fragment that ends early
		spec.Fragment = packettest.First
		packet := spec.Build()
		data := packet.Data[:packet.L4+length]
		if spec.IPv6 {
			binary.BigEndian.PutUint16(data[4:], uint16(len(data)-40))
		} else {
			binary.BigEndian.PutUint16(data[2:], uint16(len(data)))
		}
		return packettest.Ethernet(data)
	}
	over := func(spec packettest.Spec, offset uint16) []byte { // a later fragment
		spec.Fragment = packettest.Later
		packet := spec.Build()
		if spec.IPv6 {
			binary.BigEndian.PutUint16(packet.Data[42:], offset)
		} else {
			binary.BigEndian.PutUint16(packet.Data[6:], offset/8)
		}
		return packettest.Ethernet(packet.Data)
	}
	many := make([]uint8, 9)
	for n := range many {
		many[n] = packettest.DestOptions
	}
	lying := func(spec packettest.Spec, at int, value byte) []byte {
		packet := spec.Build()
		packet.Data[packet.L4+at] = value
		return packettest.Ethernet(packet.Data)
	}
	tcp4, tcp6 := packettest.Spec{Payload: 40}, packettest.Spec{IPv6: true, Payload: 40}
	udp4, udp6 := packettest.Spec{Proto: packettest.UDP, Payload: 40}, packettest.Spec{Proto: packettest.UDP, IPv6: true, Payload: 40}
	chain := packettest.Spec{IPv6: true, Extensions: []uint8{packettest.FragmentExt, packettest.DestOptions}, Fragment: packettest.First}.Build().Data[:48]
	binary.BigEndian.PutUint16(chain[4:], 8)
	arp := append(packettest.Ethernet(nil)[:12], 8, 6)
	arp = append(arp, make([]byte, 46)...)
	unparsed := map[string][]byte{
		"TCP cut to 8 bytes": cut(tcp4, 8), "TCP cut to 16 bytes, IPv6": cut(tcp6, 16), "UDP cut": cut(udp4, 0), "UDP cut, IPv6": cut(udp6, 0),
		"TCP data offset of 4": lying(tcp4, 12, 4<<4), "TCP data offset beyond the packet, IPv6": lying(packettest.Spec{IPv6: true}, 12, 15<<4),
		"over the TCP header": over(tcp4, 8), "over the TCP header, at 16": over(tcp4, 16), "over the TCP header, IPv6": over(tcp6, 8),
		"nine extension headers":                 packettest.Ethernet(packettest.Spec{IPv6: true, Extensions: many, Payload: 10}.Build().Data),
		"first fragment without all its headers": packettest.Ethernet(chain),
	}
	others := map[string][]byte{
		"ARP": arp, "ICMP": packettest.Ethernet(packettest.Spec{Proto: 1, Payload: 56}.Build().Data),
		"ICMPv6":         packettest.Ethernet(packettest.Spec{IPv6: true, Proto: packettest.ICMP6, Payload: 24}.Build().Data),
		"ICMP in pieces": cut(packettest.Spec{Proto: 1, Payload: 56}, 8), "later ICMP": over(packettest.Spec{Proto: 1, Payload: 56}, 8),
		"GRE": packettest.Ethernet(packettest.Spec{Proto: 47, Payload: 56}.Build().Data), "later TCP": over(tcp4, 24), "later UDP": over(udp4, 8),
		"later TCP, IPv6": over(tcp6, 24), "TCP": packettest.Ethernet(tcp4.Build().Data), "UDP, IPv6": packettest.Ethernet(udp6.Build().Data),
		"no IP": append(packettest.Ethernet(nil)[:14], make([]byte, 46)...),
	}
	src, dst := tcp4.Ends()
	src6, dst6 := tcp6.Ends()
	drop := func(protect ...netip.Addr) *flow.Policy {
		p := &flow.Policy{DropUnparsed: true}
		for _, addr := range protect {
			p.Prefixes = append(p.Prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
		return p
	}
	for what, test := range map[string]struct {
		policy *flow.Policy
		drops  bool
	}{
		"no policy": {&flow.Policy{}, false}, "a rule that drops": {&flow.Policy{Rules: []flow.Rule{{Action: dropping}}}, false},
		"unparsed: drop": {drop(), true}, "sources protected": {drop(src.Addr(), src6.Addr()), false},
		"destinations protected": {drop(dst.Addr(), dst6.Addr()), false},
	} {
		if err := k.rules.Set(test.policy); err != nil {
			t.Fatal(err)
		}
		for _, program := range programs {
			before := k.counters()
			for name, frame := range unparsed {
				if pass := k.which(program, frame); pass[0] == test.drops {
					t.Errorf("%s, %s, %s: passes: %v", what, program, name, pass[0])
				}
			}
			after, want := k.counters(), uint64(0)
			if test.drops {
				want = uint64(len(unparsed))
			}
			if got := after["unparsed"] - before["unparsed"]; got != want {
				t.Errorf("%s, %s: %d packets counted as unparsed, want %d", what, program, got, want)
			}
			if got := after["fragment"] - before["fragment"]; got != 3 {
				t.Errorf("%s, %s: %d packets counted as later fragments, want 3", what, program, got)
			}
			for name, frame := range others {
				if pass := k.which(program, frame); !pass[0] {
					t.Errorf("%s, %s: %s is dropped", what, program, name)
				}
			}
		}
	}
}
