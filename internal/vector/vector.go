// SPDX-License-Identifier: Apache-2.0

// Package vector turns an IP packet into the 1500 bytes that a model reads, and
// finds in it what the rest of the program needs to know of its headers.
//
// It holds the same rules as the parser in the kernel (bpf/parse.h); tests keep
// the two equal. It imports the standard library only and does not allocate.
package vector

import (
	"encoding/binary"
	"math"
)

// Size is the length of a vector in bytes.
const Size = 1500

// Version is the version of the vector's layout. A model and a dataset carry
// it; another value is refused.
const Version = 1

// udpPad is what a UDP header lacks to the length of a TCP header without
// options: with it both kinds of payload start at the same place.
const udpPad = tcpHeader - udpHeader

// Make writes the vector of an IP packet into dst: the packet from the IP
// header on, its addresses and its IPv4, TCP and UDP checksums zeroed, the UDP
// header padded to 20 bytes, cut or zero-padded to 1500 bytes. The packet may be
// cut to any length; bytes behind its total length (Ethernet padding) are left
// out. What is not IP gives zeros.
//
// A packet whose addresses and checksums are zeroed already, or that is cut to
// 1500 bytes, as the kernel's copy is, gives the same vector as the packet
// itself. With keepChecksums the checksums stay as they are.
func Make(dst *[Size]byte, packet []byte, keepChecksums bool) {
	packet = trim(packet)
	if len(packet) > Size {
		packet = packet[:Size]
	}
	place := locate(packet, math.MaxInt)
	if place.reason == NotIP {
		clear(dst[:])
		return
	}

	n := copy(dst[:], packet)
	if place.reason == OK && place.proto == UDP {
		// The header ends behind the packet where the packet is cut in it:
		// then there is no payload to move.
		if head := place.l4 + udpHeader; head < n {
			clear(dst[head:min(head+udpPad, Size)])
			if head+udpPad < Size {
				n = head + udpPad + copy(dst[head+udpPad:], packet[head:])
			} else {
				n = Size
			}
		}
	}
	clear(dst[n:])

	if place.is6 {
		zero(dst, 8, 40)
	} else {
		zero(dst, 12, 20)
	}
	if keepChecksums {
		return
	}
	if !place.is6 {
		zero(dst, 10, 12)
	}
	if place.reason == OK {
		switch place.proto {
		case TCP:
			zero(dst, place.l4+16, place.l4+18)
		case UDP:
			zero(dst, place.l4+6, place.l4+8)
		}
	}
}

// zero clears dst[from:to], as far as dst has it.
func zero(dst *[Size]byte, from, to int) {
	clear(dst[min(from, Size):min(to, Size)])
}

// trim cuts off what stands behind the IP packet's own end. A length of 0 or
// beyond the bytes there are says nothing.
func trim(packet []byte) []byte {
	if n := totalLength(packet); n != 0 && n < len(packet) {
		return packet[:n]
	}
	return packet
}

// totalLength returns the length that the IP header states, 0 where it states
// none or where the field is not there.
func totalLength(packet []byte) int {
	if len(packet) < 6 {
		return 0
	}
	switch packet[0] >> 4 {
	case 4:
		return int(binary.BigEndian.Uint16(packet[2:4]))
	case 6:
		if n := int(binary.BigEndian.Uint16(packet[4:6])); n != 0 {
			return ip6Header + n
		}
	}
	return 0
}
