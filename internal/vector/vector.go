// SPDX-License-Identifier: Apache-2.0

// Package vector turns an IP packet into the 1500 bytes that a model reads, and parses
// the headers of IP packets.
//
// It follows the same rules as the parser in the kernel (bpf/parse.h); tests compare the
// two. It imports only the standard library and does not allocate.
package vector

import (
	"encoding/binary"
	"math"
)

// Size is the length of a vector in bytes.
const Size = 1500

// Version is the version of the vector's layout. Models and datasets carry it, and
// dpclass refuses those with another version.
const Version = 1

// udpPad is the padding after a UDP header. It makes the header as long as a TCP header
// without options, so that both kinds of payload start at the same place.
const udpPad = tcpHeader - udpHeader

// Make writes the vector of an IP packet into dst. The vector is the packet from the IP
// header on, cut or zero-padded to 1500 bytes. Addresses and the IPv4, TCP and UDP
// checksums are zero (with keepChecksums, checksums keep their values), and a UDP header
// is padded to 20 bytes. Bytes after the total length, which are Ethernet padding, are
// left out. The packet may be cut anywhere. For data that is not IP the vector is all
// zeros.
//
// The copies that the kernel sends have their addresses and checksums zeroed and are cut
// to 1500 bytes. They give the same vector as the packet itself.
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
	if place.reason == OK && hasUDPHeader(place.proto) {
		// If the packet is cut inside the header, there is no payload to move.
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
		switch {
		case place.proto == TCP:
			zero(dst, place.l4+16, place.l4+18)
		case hasUDPHeader(place.proto):
			zero(dst, place.l4+6, place.l4+8)
		}
	}
}

// zero clears dst[from:to]. Both ends may lie beyond dst.
func zero(dst *[Size]byte, from, to int) {
	clear(dst[min(from, Size):min(to, Size)])
}

// trim cuts off what follows the end of the IP packet. It ignores a stated length of 0,
// or one that is longer than the data.
func trim(packet []byte) []byte {
	if n := totalLength(packet); n != 0 && n < len(packet) {
		return packet[:n]
	}
	return packet
}

// totalLength returns the length of the packet that the IP header states. It returns 0 if
// the header states none or the data ends before the field.
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
