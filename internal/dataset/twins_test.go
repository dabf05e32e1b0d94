// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// A packet that comes again on another interface is a twin; one that comes again on the
// same interface was sent again.
func TestTwins(t *testing.T) {
	packet := between(17, "10.0.0.1:1000", "10.0.0.2:2000", 40)
	six := between(6, "[fd00::1]:5", "[fd00::2]:6", 7)
	other := bytes.Clone(packet)
	other[len(other)-1] ^= 1
	// A router lowers the time to live, may set a DSCP, and changes the header's checksum.
	routed, routed6 := bytes.Clone(packet), bytes.Clone(six)
	routed[1], routed[8], routed[10] = 0xb8, routed[8]-1, routed[10]+1
	routed6[0], routed6[1], routed6[7] = 0x6b, 0x80|routed6[1]&15, routed6[7]-1
	unsummed := bytes.Clone(packet)
	unsummed[26], unsummed[27] = 0, 0
	type seen struct {
		packet       []byte
		iface        uint64
		at           time.Duration
		twin, hidden bool
	}
	for name, list := range map[string][]seen{
		"bridge":              {{packet, 3, 0, false, false}, {packet, 2, 1, true, false}, {other, 3, 2, false, false}, {other, 2, 3, true, false}},
		"sent again":          {{packet, 3, 0, false, false}, {packet, 3, 1, false, false}, {packet, 2, 2, true, false}},
		"three interfaces":    {{packet, 3, 0, false, false}, {packet, 2, 1, true, false}, {packet, 1, 2, true, false}},
		"router":              {{packet, 3, 0, false, false}, {routed, 2, 1, true, false}, {six, 3, 2, false, false}, {routed6, 2, 3, true, false}},
		"checksum offload":    {{unsummed, 3, 0, false, false}, {packet, 2, 1, true, false}},
		"other path":          {{packet, 3, 0, false, false}, {other, 2, 1, false, false}},
		"much later":          {{packet, 3, 0, false, false}, {packet, 2, 2 * time.Second, false, false}},
		"clock runs back":     {{packet, 3, time.Second, false, false}, {packet, 2, time.Second - 1, true, false}},
		"one interface":       {{packet, 0, 0, false, false}, {packet, 0, 1, false, false}},
		"interface not known": {{packet, capture.AnyInterface, 0, false, false}, {packet, capture.AnyInterface, time.Millisecond, false, true}},
		"sent again, not known": {
			{packet, capture.AnyInterface, 0, false, false}, {packet, capture.AnyInterface, 20 * time.Millisecond, false, false},
		},
	} {
		var w twins
		for i, s := range list {
			p, reason := vector.Parse(s.packet, len(s.packet))
			if reason != vector.OK {
				t.Fatal(reason)
			}
			read := capture.Packet{Time: packettest.Began.Add(s.at), Data: s.packet, Length: len(s.packet), Interface: s.iface}
			if twin, hidden := w.twin(&read, &p); twin != s.twin || hidden != s.hidden {
				t.Errorf("%s, packet %d: twin %v, hidden %v", name, i, twin, hidden)
			}
		}
	}
}

// The table finds every flow again, and says of each what was counted.
func TestTable(t *testing.T) {
	table := newTable()
	const n = 20000
	ends := func(i int) (proto uint8, src, dst [4]byte) {
		return []uint8{6, 17}[i%2], [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, [4]byte{192, 0, 2, byte(i % 7)}
	}
	for round := range 2 {
		for i := range n {
			proto, src, dst := ends(i)
			key, fromA := keyOf(proto, src, dst, i%3 == 0)
			number, found, fresh := table.find(&key)
			if number != i || fresh != (round == 0) {
				t.Fatalf("flow %d: number %d, fresh %v", i, number, fresh)
			}
			if fresh {
				found.firstB = !fromA
			}
			found.packets += uint64(i)
		}
	}
	i := 0
	for f := range table.all() {
		proto, src, dst := ends(i)
		key, fromA := keyOf(proto, src, dst, i%3 == 0)
		first := key.A
		if !fromA {
			first = key.B
		}
		if f.Key != key || f.Src != first || f.Packets != uint64(2*i) || f.Number != i {
			t.Fatalf("flow %d: %+v", i, f)
		}
		i++
	}
	if i != n {
		t.Errorf("%d flows", i)
	}
}

// keyOf returns the key of a packet with ports 1000 and 2000.
func keyOf(proto uint8, src, dst [4]byte, six bool) (flow.Key, bool) {
	from, to := netip.AddrFrom4(src), netip.AddrFrom4(dst)
	if six {
		from = netip.AddrFrom16([16]byte{0: 0xfd, 12: src[0], 13: src[1], 14: src[2], 15: src[3]})
		to = netip.AddrFrom16([16]byte{0: 0xfd, 15: dst[3]})
	}
	return flow.MakeKey(flow.Proto(proto), netip.AddrPortFrom(from, 1000), netip.AddrPortFrom(to, 2000), 0)
}
