// SPDX-License-Identifier: Apache-2.0

package vector

import (
	"encoding/binary"
	"net/netip"
)

// The protocols that have flows (IANA protocol numbers).
const (
	TCP = 6
	UDP = 17
)

// hasUDPHeader reports whether the protocol has flows and UDP's header.
func hasUDPHeader(proto uint8) bool { return proto == UDP }

const (
	ip4Header = 20
	ip6Header = 40
	tcpHeader = 20
	udpHeader = 8

	// maxExtensions is the longest chain of IPv6 extension headers that is parsed. There
	// is a limit because the kernel's parser needs one.
	maxExtensions = 8

	// maxOffset is the largest offset of a TCP or UDP header after IPv6 extension
	// headers. Beyond it, the vector could not hold the whole header.
	maxOffset = 1480

	dnsPort = 53
)

// Reason says why a packet belongs to no flow. Names and meanings are the same as in
// enum reason of bpf/counters.h.
type Reason uint8

// The reasons. Parse returns endpoints only for OK. Network returns those about the link
// layer.
const (
	OK         Reason = iota
	NotIP             // neither IPv4 nor IPv6
	Truncated         // the capture ends inside a header
	IPHeader          // impossible version, header length or total length
	ExtHeaders        // more or longer IPv6 extension headers than are parsed
	Fragment          // a later fragment, which has no ports
	ICMP              // ICMP or ICMPv6
	Tunnel            // IPIP, SIT, GRE or ESP
	OtherProto        // any other protocol than TCP and UDP
	L4Header          // impossible TCP data offset, or too short for the header
	VLANDepth         // more than two VLAN tags
	MPLSDepth         // more than four MPLS labels
	Reasons           // number of reasons
)

var reasonNames = [Reasons]string{
	"ok", "not_ip", "truncated", "ip_header", "ext_headers", "fragment", "icmp", "tunnel", "other_proto", "l4_header",
	"vlan_depth", "mpls_depth",
}

// String returns the reason's name.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return "invalid"
}

// reasonOf returns the reason for a protocol other than TCP and UDP.
func reasonOf(proto uint8) Reason {
	switch proto {
	case 1, 58:
		return ICMP
	case 4, 41, 47, 50:
		return Tunnel
	}
	return OtherProto
}

// Packet holds what the headers of an IP packet say. Offsets count bytes from the IP
// header.
type Packet struct {
	Src, Dst netip.AddrPort
	Proto    uint8 // TCP or UDP
	Flags    uint8 // TCP only: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32
	First    bool  // it is the first of several fragments
	L4       int   // offset of the TCP or UDP header
	Payload  int   // offset of the payload, even if the capture ends before it
	Captured int   // number of captured payload bytes
	Length   int   // bytes on the wire, from the IP header on, without Ethernet padding
}

// Sampled reports whether a model reads the packet: it has at least one captured payload
// byte and is not DNS.
func (p *Packet) Sampled() bool { return p.Captured > 0 && !p.IsDNS() }

// IsDNS reports whether either end is a DNS server.
func (p *Packet) IsDNS() bool { return p.Src.Port() == dnsPort || p.Dst.Port() == dnsPort }

// VectorPayload returns the offset of the payload in the packet's vector.
func (p *Packet) VectorPayload() int {
	if hasUDPHeader(p.Proto) {
		return p.Payload + udpPad
	}
	return p.Payload
}

// Parse reads the headers of an IP packet. packet is what was captured, from the IP
// header on. frameLen is the number of bytes that the frame has on the wire from there
// on, which may be more. Parse returns OK or the reason why the packet has no flow; then
// only Length is valid.
func Parse(packet []byte, frameLen int) (Packet, Reason) {
	var p Packet
	p.Length = max(frameLen, len(packet))
	if n := totalLength(packet); n != 0 && n < p.Length {
		p.Length = n
	}
	place := locate(packet, p.Length)
	if place.reason != OK {
		return p, place.reason
	}
	if len(packet) > p.Length {
		packet = packet[:p.Length]
	}
	header := tcpHeader
	switch {
	case place.proto == TCP:
	case hasUDPHeader(place.proto):
		header = udpHeader
	default:
		return p, reasonOf(place.proto)
	}
	p.Proto, p.First, p.L4 = place.proto, place.first, place.l4
	switch {
	case p.L4+header > p.Length:
		return p, L4Header
	case p.L4+header > len(packet):
		return p, Truncated
	}
	l4 := packet[p.L4:]
	if p.Proto == TCP {
		header = int(l4[12]>>4) * 4
		if header < tcpHeader || p.L4+header > p.Length {
			return p, L4Header
		}
		p.Flags = l4[13]
	}
	p.Payload = p.L4 + header
	p.Captured = max(len(packet)-p.Payload, 0)

	var src, dst netip.Addr
	if place.is6 {
		src, dst = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
	} else {
		src, dst = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
	}
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(l4[0:2]))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:4]))
	return p, OK
}

// place says where the transport header of a packet is.
type place struct {
	l4     int
	proto  uint8
	is6    bool
	first  bool // first of several fragments
	reason Reason
}

// locate finds the transport header of a packet, given its length on the wire. The
// header may begin after the end of the captured bytes.
func locate(packet []byte, length int) place {
	if len(packet) == 0 {
		return place{reason: NotIP}
	}
	switch packet[0] >> 4 {
	case 4:
		return locate4(packet, length)
	case 6:
		return locate6(packet, length)
	}
	return place{reason: NotIP}
}

func locate4(packet []byte, length int) place {
	if len(packet) < ip4Header {
		return place{reason: Truncated}
	}
	header := int(packet[0]&15) * 4
	switch {
	case header < ip4Header, header > length:
		return place{reason: IPHeader}
	case header > len(packet):
		return place{reason: Truncated}
	}
	fragment := binary.BigEndian.Uint16(packet[6:8])
	if fragment&0x1fff != 0 {
		return place{reason: Fragment}
	}
	return place{l4: header, proto: packet[9], first: fragment&0x2000 != 0}
}

func locate6(packet []byte, length int) place {
	p := place{is6: true}
	if len(packet) < ip6Header {
		p.reason = Truncated
		return p
	}
	next, offset := packet[6], ip6Header
	for walked := 0; extension(next); walked++ {
		if walked == maxExtensions || offset > maxOffset {
			p.reason = ExtHeaders
			return p
		}
		switch end := offset + 8; { // the shortest extension header
		case end > length:
			p.reason = IPHeader
			return p
		case end > len(packet):
			p.reason = Truncated
			return p
		}
		header := packet[offset : offset+8]
		switch next {
		case 44: // fragment
			fragment := binary.BigEndian.Uint16(header[2:4])
			if fragment&0xfff8 != 0 {
				p.reason = Fragment
				return p
			}
			p.first = p.first || fragment&1 != 0
			offset += 8
		case 51: // authentication header: counted in 4 bytes
			offset += (int(header[1]) + 2) * 4
		default:
			offset += (int(header[1]) + 1) * 8
		}
		next = header[0]
	}
	if offset > maxOffset {
		p.reason = ExtHeaders
		return p
	}
	p.l4, p.proto = offset, next
	return p
}

// extension reports whether an IPv6 next-header value is an extension header that
// locate6 can skip: hop-by-hop options, routing, fragment, authentication, destination
// options, mobility, HIP and shim6.
func extension(next uint8) bool {
	switch next {
	case 0, 43, 44, 51, 60, 135, 139, 140:
		return true
	}
	return false
}
