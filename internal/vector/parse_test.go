// SPDX-License-Identifier: Apache-2.0

package vector_test

import (
	"net/netip"
	"testing"

	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// wantReason returns the reason that Parse must give for a whole packet.
func wantReason(p packettest.Packet) vector.Reason {
	switch {
	case tooLong(p):
		return vector.ExtHeaders
	case p.Fragment == packettest.Later:
		return vector.Fragment
	case p.HasPort:
		return vector.OK
	case p.Proto == 1, p.Proto == packettest.ICMP6:
		return vector.ICMP
	case p.Proto == 47:
		return vector.Tunnel
	}
	return vector.OtherProto
}

func TestParseHeaders(t *testing.T) {
	for _, payload := range []int{0, 1, 1400} {
		for _, spec := range packettest.Specs(payload) {
			p := spec.Build()
			src, dst := spec.Ends()
			for _, data := range [][]byte{p.Data, padded(p)} {
				got, reason := vector.Parse(data, len(data))
				if reason != wantReason(p) {
					t.Fatalf("%s: reason %s, want %s", spec, reason, wantReason(p))
				}
				if got.Length != len(p.Data) {
					t.Fatalf("%s: length %d, want %d", spec, got.Length, len(p.Data))
				}
				if reason != vector.OK {
					continue
				}
				if got.Src != src || got.Dst != dst || got.Proto != p.Proto {
					t.Fatalf("%s: %d %v %v", spec, got.Proto, got.Src, got.Dst)
				}
				if got.L4 != p.L4 || got.Payload != p.Offset || got.Captured != payload {
					t.Fatalf("%s: l4 %d payload %d captured %d, want %d, %d, %d", spec, got.L4, got.Payload, got.Captured, p.L4, p.Offset, payload)
				}
				if got.First != (p.Fragment == packettest.First) {
					t.Fatalf("%s: first fragment is %v", spec, got.First)
				}
				if got.Sampled() != (payload > 0) {
					t.Fatalf("%s: sampled is %v", spec, got.Sampled())
				}
				if p.Proto == packettest.TCP && p.TCPFlags != 0 && got.Flags != p.TCPFlags {
					t.Fatalf("%s: flags %#x, want %#x", spec, got.Flags, p.TCPFlags)
				}
			}
		}
	}
}

// A capture cut inside the headers is Truncated. One cut after them has the lengths of
// the whole packet and the captured part of the payload.
func TestParseCutAnywhere(t *testing.T) {
	for _, spec := range packettest.Specs(30) {
		p := spec.Build()
		if wantReason(p) != vector.OK {
			continue
		}
		header := p.L4 + 20
		if p.Proto == packettest.UDP {
			header = p.L4 + 8
		}
		for cut := 1; cut <= len(p.Data); cut++ {
			got, reason := vector.Parse(p.Data[:cut], len(p.Data))
			switch {
			case cut < header:
				if reason != vector.Truncated {
					t.Fatalf("%s, %d bytes: reason %s", spec, cut, reason)
				}
			case reason != vector.OK:
				t.Fatalf("%s, %d bytes: reason %s", spec, cut, reason)
			case got.Length != len(p.Data) || got.Captured != max(cut-p.Offset, 0) || got.Payload != p.Offset:
				t.Fatalf("%s, %d bytes: length %d, captured %d, payload %d", spec, cut, got.Length, got.Captured, got.Payload)
			case got.Sampled() != (cut > p.Offset):
				t.Fatalf("%s, %d bytes: sampled is %v", spec, cut, got.Sampled())
			}
		}
	}
}

func TestParseRefused(t *testing.T) {
	edit := func(s packettest.Spec, change func(p packettest.Packet)) []byte {
		p := s.Build()
		change(p)
		return p.Data
	}
	tcp4 := packettest.Spec{Proto: packettest.TCP, Payload: 10}
	tcp6 := packettest.Spec{Proto: packettest.TCP, Payload: 10, IPv6: true}
	ext6 := packettest.Spec{Proto: packettest.TCP, IPv6: true, Extensions: []uint8{packettest.DestOptions}}
	for _, test := range []struct {
		name   string
		data   []byte
		reason vector.Reason
	}{
		{"empty", nil, vector.NotIP},
		{"version 0", []byte{0, 0, 0, 0}, vector.NotIP},
		{"ihl 4", edit(tcp4, func(p packettest.Packet) { p.Data[0] = 0x44 }), vector.IPHeader},
		{"ihl beyond the total length", edit(tcp4, func(p packettest.Packet) { p.Data[0], p.Data[3] = 0x4f, 59 }), vector.IPHeader},
		{"total length 10", edit(tcp4, func(p packettest.Packet) { p.Data[3] = 10 }), vector.IPHeader},
		{"total length within TCP", edit(tcp4, func(p packettest.Packet) { p.Data[3] = 39 }), vector.L4Header},
		{"data offset 4", edit(tcp4, func(p packettest.Packet) { p.Data[p.L4+12] = 0x40 }), vector.L4Header},
		{"data offset beyond the packet", edit(tcp4, func(p packettest.Packet) { p.Data[p.L4+12] = 0xf0 }), vector.L4Header},
		{"payload length within TCP", edit(tcp6, func(p packettest.Packet) { p.Data[5] = 19 }), vector.L4Header},
		{"payload length within an extension header", edit(ext6, func(p packettest.Packet) { p.Data[5] = 7 }), vector.IPHeader},
		{"extension header beyond the packet", edit(ext6, func(p packettest.Packet) { p.Data[41] = 100 }), vector.L4Header},
		{"extension header beyond the vector", edit(ext6, func(p packettest.Packet) { p.Data[41] = 255 }), vector.ExtHeaders},
	} {
		if _, reason := vector.Parse(test.data, len(test.data)); reason != test.reason {
			t.Errorf("%s: reason %s, want %s", test.name, reason, test.reason)
		}
	}
}

func TestParseStatedLength(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		at := 2
		if ipv6 {
			at = 4
		}
		p := packettest.Spec{IPv6: ipv6, Payload: 100}.Build()
		for _, length := range [][2]byte{{0, 0}, {0xff, 0xff}} {
			p.Data[at], p.Data[at+1] = length[0], length[1]
			got, reason := vector.Parse(p.Data, len(p.Data)+7)
			if reason != vector.OK || got.Length != len(p.Data)+7 || got.Captured != 100 {
				t.Errorf("ipv6 %v, %x: reason %s, length %d, captured %d", ipv6, length, reason, got.Length, got.Captured)
			}
		}
		// A frame length below the captured length must be wrong: the captured length counts.
		if got, _ := vector.Parse(p.Data, 3); got.Length != len(p.Data) {
			t.Errorf("ipv6 %v: length %d, want %d", ipv6, got.Length, len(p.Data))
		}
	}
}

func TestParseDNS(t *testing.T) {
	for port, sampled := range map[uint16]bool{53: false, 853: true, 5353: true, 5355: true} {
		for _, proto := range []uint8{packettest.TCP, packettest.UDP} {
			for _, server := range []bool{true, false} {
				spec := packettest.Spec{Proto: proto, Payload: 20}
				end := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)
				if spec.Src = end; server {
					spec.Src, spec.Dst = netip.AddrPort{}, end
				}
				p, reason := vector.Parse(spec.Build().Data, 0)
				if reason != vector.OK || p.Sampled() != sampled {
					t.Errorf("port %d, proto %d: %s, sampled %v", port, proto, reason, p.Sampled())
				}
			}
		}
	}
}
