// SPDX-License-Identifier: Apache-2.0

// Package packettest builds packets for tests and benchmarks. [Specs] lists the
// combinations of headers on which the parsers in Go and in the kernel must agree.
package packettest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Protocols and extension headers (IANA protocol numbers).
const (
	HopByHop    = 0
	TCP         = 6
	UDP         = 17
	Routing     = 43
	FragmentExt = 44
	Auth        = 51
	ICMP6       = 58
	NoNext      = 59
	DestOptions = 60
	Mobility    = 135
	HIP         = 139
	Shim6       = 140
)

// Fragmentation says which fragment of its datagram a packet is.
type Fragmentation int

// Whole is a packet that is not fragmented, Later any fragment but the first.
const (
	Whole Fragmentation = iota
	First
	Later
)

// Spec describes a packet to build. The zero value is a plain IPv4 TCP packet without
// payload.
type Spec struct {
	IPv6       bool
	Options    int     // IPv4: words of options, 0 to 10
	Extensions []uint8 // IPv6: extension headers, in order
	ExtWords   int     // IPv6: units of 8 bytes in each extension header after the first unit
	Fragment   Fragmentation
	Proto      uint8  // TCP unless set
	TCPOptions int    // words of options, 0 to 10
	TCPFlags   uint8  // ACK and PSH unless set
	Seq, Ack   uint32 // TCP; numbers that fit together unless set
	Payload    int    // number of payload bytes, made up, none of them zero
	Body       []byte // the payload itself, instead of made-up bytes
	Src, Dst   netip.AddrPort
}

// Packet is a built packet with the offsets of its parts. Each pair of offsets is the
// first byte of the part and the first byte after it.
type Packet struct {
	Spec
	Data    []byte
	L4      int      // offset of the transport header
	Offset  int      // offset of the payload
	Addrs   [2]int   // both addresses
	Sums    [][2]int // each checksum
	HasPort bool     // TCP or UDP, and not a later fragment
}

// String names the packet in test output.
func (s Spec) String() string {
	var b strings.Builder
	if s.IPv6 {
		b.WriteString("ipv6")
		for _, e := range s.Extensions {
			fmt.Fprintf(&b, "-ext%d", e)
		}
		if s.ExtWords > 0 {
			fmt.Fprintf(&b, "x%d", s.ExtWords+1)
		}
	} else {
		fmt.Fprintf(&b, "ipv4-options%d", s.Options)
	}
	fmt.Fprintf(&b, "-%s-", [...]string{"whole", "first", "later"}[s.Fragment])
	switch s.proto() {
	case TCP:
		fmt.Fprintf(&b, "tcp-options%d", s.TCPOptions)
	case UDP:
		b.WriteString("udp")
	default:
		fmt.Fprintf(&b, "proto%d", s.proto())
	}
	fmt.Fprintf(&b, "-payload%d", s.Payload)
	return b.String()
}

func (s Spec) proto() uint8 {
	if s.Proto == 0 {
		return TCP
	}
	return s.Proto
}

// Ends returns the endpoints of the packet: those of the Spec, or the defaults.
func (s Spec) Ends() (src, dst netip.AddrPort) {
	src, dst = s.Src, s.Dst
	if !src.IsValid() {
		src = netip.MustParseAddrPort("198.51.100.7:40001")
		if s.IPv6 {
			src = netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:40001")
		}
	}
	if !dst.IsValid() {
		dst = netip.MustParseAddrPort("203.0.113.9:443")
		if s.IPv6 {
			dst = netip.MustParseAddrPort("[2001:db8:a:b:c:d:e:f]:443")
		}
	}
	return src, dst
}

// Build builds the packet, from the IP header on, with correct checksums.
func (s Spec) Build() Packet {
	if s.Body != nil {
		s.Payload = len(s.Body)
	}
	src, dst := s.Ends()
	p := Packet{Spec: s}
	l4 := s.transport(src, dst)
	if s.IPv6 {
		p.Data = s.header6(src.Addr(), dst.Addr(), len(l4))
		p.Addrs = [2]int{8, 40}
	} else {
		p.Data = s.header4(src.Addr(), dst.Addr(), len(l4))
		p.Addrs = [2]int{12, 20}
		p.Sums = append(p.Sums, [2]int{10, 12})
	}
	p.L4 = len(p.Data)
	p.Data = append(p.Data, l4...)
	p.Offset = len(p.Data) - s.Payload
	if s.Fragment == Later {
		return p
	}
	switch s.proto() {
	case TCP:
		p.HasPort = true
		p.Sums = append(p.Sums, [2]int{p.L4 + 16, p.L4 + 18})
	case UDP:
		p.HasPort = true
		p.Sums = append(p.Sums, [2]int{p.L4 + 6, p.L4 + 8})
	}
	return p
}

func (s Spec) header4(src, dst netip.Addr, rest int) []byte {
	length := 20 + 4*s.Options
	h := make([]byte, length)
	h[0] = 4<<4 | byte(length/4)
	h[1] = 0x2b // DSCP 10, ECN 3
	binary.BigEndian.PutUint16(h[2:], uint16(length+rest))
	binary.BigEndian.PutUint16(h[4:], 0x1234)
	switch s.Fragment {
	case First:
		binary.BigEndian.PutUint16(h[6:], 0x2000)
	case Later:
		binary.BigEndian.PutUint16(h[6:], 0x2000|185)
	default:
		binary.BigEndian.PutUint16(h[6:], 0x4000)
	}
	h[8], h[9] = 64, s.proto()
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	for i := 20; i < length; i++ {
		h[i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(h[10:], ^sum(0, h))
	return h
}

func (s Spec) header6(src, dst netip.Addr, rest int) []byte {
	chain := s.Extensions
	if s.Fragment != Whole && !slices.Contains(chain, FragmentExt) {
		chain = append(append([]uint8{}, chain...), FragmentExt)
	}
	h := make([]byte, 40)
	h[0], h[1] = 6<<4|0x2, 0xb0 // DSCP 10, ECN 3
	h[7] = 64
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	next := 6 // offset of the byte that names the next header
	for _, kind := range chain {
		h[next] = kind
		next = len(h)
		ext := make([]byte, 8*(s.ExtWords+1))
		ext[1] = byte(s.ExtWords)
		switch kind {
		case FragmentExt:
			ext = ext[:8]
			ext[1] = 0
			switch s.Fragment {
			case First:
				binary.BigEndian.PutUint16(ext[2:], 1)
			case Later:
				binary.BigEndian.PutUint16(ext[2:], 185<<3|1)
			}
			binary.BigEndian.PutUint32(ext[4:], 0x12345678)
		case Auth:
			ext[1] = byte(2*(s.ExtWords+1) - 2) // counted in units of 4 bytes, minus 2
		default:
			for i := 2; i < len(ext); i++ {
				ext[i] = 0xee
			}
		}
		h = append(h, ext...)
	}
	h[next] = s.proto()
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+rest))
	return h
}

func (s Spec) transport(src, dst netip.AddrPort) []byte {
	var h []byte
	at := -1 // offset of the checksum
	switch {
	case s.Fragment == Later:
	case s.proto() == TCP:
		h = make([]byte, 20+4*s.TCPOptions)
		binary.BigEndian.PutUint32(h[4:], orElse(s.Seq, 0x01020304))
		binary.BigEndian.PutUint32(h[8:], orElse(s.Ack, 0x01020305))
		h[12] = byte(len(h)/4) << 4
		h[13] = s.TCPFlags
		if s.TCPFlags == 0 {
			h[13] = 0x18
		}
		binary.BigEndian.PutUint16(h[14:], 501)
		for i := 20; i < len(h); i++ {
			h[i] = 1
		}
		at = 16
	case s.proto() == UDP:
		h = make([]byte, 8)
		binary.BigEndian.PutUint16(h[4:], uint16(8+s.Payload))
		at = 6
	}
	if at >= 0 {
		binary.BigEndian.PutUint16(h[0:], src.Port())
		binary.BigEndian.PutUint16(h[2:], dst.Port())
	}
	if s.Body != nil {
		h = append(h, s.Body...)
	} else {
		for i := range s.Payload {
			h = append(h, byte(i%251)+1)
		}
	}
	if at >= 0 {
		pseudo := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(h)))
		pseudo = append(pseudo, 0, 0, 0, s.proto())
		value := ^sum(sum(0, pseudo), h)
		if value == 0 {
			value = 0xffff
		}
		binary.BigEndian.PutUint16(h[at:], value)
	}
	return h
}

// orElse returns a number, or another one if it is 0.
func orElse(number, other uint32) uint32 {
	if number == 0 {
		return other
	}
	return number
}

// sum returns the Internet checksum of data, not complemented, starting from a partial sum.
func sum(start uint16, data []byte) uint16 {
	total := uint32(start)
	for i := 0; i < len(data); i += 2 {
		total += uint32(data[i]) << 8
		if i+1 < len(data) {
			total += uint32(data[i+1])
		}
	}
	for total>>16 != 0 {
		total = total&0xffff + total>>16
	}
	return uint16(total)
}

// Ethernet returns the frame of an IP packet, padded to 60 bytes. tags are the EtherTypes
// of VLAN tags, such as 0x8100 or 0x88a8.
func Ethernet(packet []byte, tags ...uint16) []byte {
	kind := uint16(0x0800)
	if len(packet) > 0 && packet[0]>>4 == 6 {
		kind = 0x86dd
	}
	return frame(kind, packet, tags)
}

// PPPoE is Ethernet with the headers of a PPPoE session and of PPP before the packet.
func PPPoE(packet []byte, tags ...uint16) []byte {
	proto := uint16(0x0021)
	if len(packet) > 0 && packet[0]>>4 == 6 {
		proto = 0x0057
	}
	headers := []byte{0x11, 0, 0x12, 0x34}
	headers = binary.BigEndian.AppendUint16(headers, uint16(2+len(packet)))
	headers = binary.BigEndian.AppendUint16(headers, proto)
	return frame(0x8864, append(headers, packet...), tags)
}

// MPLS is Ethernet with MPLS labels before the packet.
func MPLS(packet []byte, labels int, tags ...uint16) []byte {
	var stack []byte
	for n := range labels {
		entry := uint32(1000+n)<<12 | 64
		if n == labels-1 {
			entry |= 1 << 8 // the bottom
		}
		stack = binary.BigEndian.AppendUint32(stack, entry)
	}
	return frame(0x8847, append(stack, packet...), tags)
}

// frame returns an Ethernet frame with VLAN tags, padded to 60 bytes.
func frame(kind uint16, payload []byte, tags []uint16) []byte {
	frame := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for i, tag := range tags {
		frame = binary.BigEndian.AppendUint16(frame, tag)
		frame = binary.BigEndian.AppendUint16(frame, 0x6000|uint16(100+i))
	}
	frame = binary.BigEndian.AppendUint16(frame, kind)
	frame = append(frame, payload...)
	for len(frame) < 60 {
		frame = append(frame, 0xa5)
	}
	return frame
}
