// SPDX-License-Identifier: Apache-2.0

package vector_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// tooLong reports whether the packet has more extension headers than Parse accepts.
func tooLong(p packettest.Packet) bool {
	n := len(p.Extensions)
	if p.Fragment != packettest.Whole && !slices.Contains(p.Extensions, packettest.FragmentExt) {
		n++
	}
	return n > 8 || p.L4 > 1480
}

// want builds the expected vector of the first cut bytes of a packet from the known
// places of its parts.
func want(p packettest.Packet, cut int, keepChecksums bool) []byte {
	data := bytes.Clone(p.Data)
	clear(data[p.Addrs[0]:p.Addrs[1]])
	for i, at := range p.Sums {
		inIP := !p.IPv6 && i == 0
		if !keepChecksums && (inIP || !tooLong(p)) {
			clear(data[at[0]:at[1]])
		}
	}
	data = data[:cut]
	if end := p.L4 + 8; p.HasPort && p.Proto == packettest.UDP && !tooLong(p) && cut > end {
		data = append(append(bytes.Clone(data[:end]), make([]byte, 12)...), data[end:]...)
	}
	full := make([]byte, vector.Size)
	copy(full, data)
	return full
}

// padded returns the packet with Ethernet padding. A bare IPv6 header gets none: it
// states length 0, which says nothing about where the packet ends.
func padded(p packettest.Packet) []byte {
	if len(p.Data) == 40 {
		return p.Data
	}
	return append(bytes.Clone(p.Data), 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5)
}

func check(t *testing.T, name string, packet []byte, keep bool, want []byte) {
	t.Helper()
	var got [vector.Size]byte
	for i := range got {
		got[i] = 0xcc // what an earlier packet left
	}
	vector.Make(&got, packet, keep)
	if bytes.Equal(got[:], want) {
		return
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s, %d bytes: byte %d is %#02x, want %#02x", name, len(packet), i, got[i], want[i])
		}
	}
}

func TestMakeHeaders(t *testing.T) {
	for _, payload := range []int{0, 1, 7, 64, 1400, 1600} {
		for _, spec := range packettest.Specs(payload) {
			p := spec.Build()
			for _, keep := range []bool{false, true} {
				check(t, spec.String(), p.Data, keep, want(p, len(p.Data), keep))
				check(t, spec.String()+" padded", padded(p), keep, want(p, len(p.Data), keep))
			}
		}
	}
}

func TestMakeLengths(t *testing.T) {
	for payload := range 1601 {
		for _, proto := range []uint8{packettest.TCP, packettest.UDP} {
			for _, ipv6 := range []bool{false, true} {
				spec := packettest.Spec{IPv6: ipv6, Proto: proto, Payload: payload}
				p := spec.Build()
				check(t, spec.String(), p.Data, false, want(p, len(p.Data), false))
			}
		}
	}
}

func TestMakeCutAnywhere(t *testing.T) {
	for _, spec := range packettest.Specs(40) {
		p := spec.Build()
		// After the headers all cuts are alike.
		for cut := 1; cut <= min(len(p.Data), 200); cut++ {
			check(t, spec.String(), p.Data[:cut], false, want(p, cut, false))
		}
	}
}

// The kernel's copy has its addresses and checksums zeroed and is cut to 1500 bytes. It
// must give the same vector as the packet.
func TestMakeOfKernelCopy(t *testing.T) {
	for _, payload := range []int{1, 600, 1600} {
		for _, spec := range packettest.Specs(payload) {
			p := spec.Build()
			copied := bytes.Clone(p.Data)
			clear(copied[p.Addrs[0]:p.Addrs[1]])
			for _, at := range p.Sums {
				clear(copied[at[0]:at[1]])
			}
			copied = copied[:min(len(copied), vector.Size)]
			if tooLong(p) {
				continue // never sampled
			}
			check(t, spec.String(), copied, false, want(p, len(p.Data), false))
		}
	}
}

func TestMakeNotIP(t *testing.T) {
	zeros := make([]byte, vector.Size)
	check(t, "empty", nil, false, zeros)
	check(t, "version 5", []byte{0x55, 1, 2, 3}, false, zeros)
}

// Make ignores a stated length of zero, or one longer than the packet.
func TestMakeStatedLength(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		at := 2
		if ipv6 {
			at = 4
		}
		p := packettest.Spec{IPv6: ipv6, Proto: packettest.UDP, Payload: 100}.Build()
		for _, length := range [][2]byte{{0, 0}, {0xff, 0xff}} {
			p.Data[at], p.Data[at+1] = length[0], length[1]
			check(t, "stated", p.Data, false, want(p, len(p.Data), false))
		}
	}
}

func TestNoAllocations(t *testing.T) {
	packet := packettest.Spec{IPv6: true, Extensions: []uint8{packettest.HopByHop}, Proto: packettest.UDP, Payload: 900}.Build().Data
	var dst [vector.Size]byte
	if n := testing.AllocsPerRun(100, func() {
		vector.Make(&dst, packet, false)
		vector.Parse(packet, len(packet))
	}); n != 0 {
		t.Errorf("%v allocations per packet, want none", n)
	}
}

func BenchmarkMake(b *testing.B) {
	packet := packettest.Spec{Proto: packettest.UDP, Payload: 600}.Build().Data
	var dst [vector.Size]byte
	b.ReportAllocs()
	for b.Loop() {
		vector.Make(&dst, packet, false)
	}
}

func BenchmarkParse(b *testing.B) {
	packet := packettest.Spec{Proto: packettest.TCP, Payload: 600}.Build().Data
	b.ReportAllocs()
	for b.Loop() {
		vector.Parse(packet, len(packet))
	}
}
