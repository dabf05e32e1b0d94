// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"

	"github.com/dpclass/dpclass/internal/vector"
)

// Link types of capture files: LINKTYPE_ values, and the DLT_ values 12 and 14 for raw
// IP, which some writers use.
const (
	linkNull     = 0
	linkEthernet = 1
	linkRaw12    = 12
	linkRaw14    = 14
	linkRaw      = 101
	linkLoop     = 108
	linkCooked   = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkCooked2  = 276
)

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
)

// findIP returns the offset of the IP header in a frame. ok reports whether the frame
// holds an IP packet, known whether the link type is supported.
func findIP(linkType int, data []byte) (offset int, ok, known bool) {
	kind := 0 // any version
	switch linkType {
	case linkEthernet:
		if len(data) < 14 {
			return 0, false, true
		}
		kind, offset = network(data, binary.BigEndian.Uint16(data[12:]), 14)
	case linkCooked:
		if len(data) < 16 {
			return 0, false, true
		}
		kind, offset = network(data, binary.BigEndian.Uint16(data[14:]), 16)
	case linkCooked2:
		if len(data) < 20 {
			return 0, false, true
		}
		kind, offset = network(data, binary.BigEndian.Uint16(data), 20)
	case linkNull, linkLoop:
		if len(data) < 4 {
			return 0, false, true
		}
		// The address family is in the byte order of the capturing host, which the file
		// does not state. All families are below 256, so both orders can be told apart.
		family := binary.LittleEndian.Uint32(data) | binary.BigEndian.Uint32(data)
		offset = 4
		switch family {
		case 2 | 2<<24:
			kind = typeIPv4
		case 10 | 10<<24, 24 | 24<<24, 28 | 28<<24, 30 | 30<<24:
			kind = typeIPv6
		default:
			return 0, false, true
		}
	case linkRaw, linkRaw12, linkRaw14:
	case linkIPv4:
		kind = typeIPv4
	case linkIPv6:
		kind = typeIPv6
	default:
		return 0, false, false
	}
	if offset >= len(data) {
		return 0, false, true
	}
	switch version := data[offset] >> 4; {
	case version == 4 && (kind == typeIPv4 || kind == 0):
		return offset, true, true
	case version == 6 && (kind == typeIPv6 || kind == 0):
		return offset, true, true
	}
	return 0, false, true
}

// network returns the EtherType of the IP packet after a link-layer header that ends at
// offset, and the packet's own offset. The EtherType is -1 if there is none.
func network(data []byte, kind uint16, offset int) (ethertype, at int) {
	at, found, reason := vector.Network(kind, data[offset:])
	if reason != vector.OK {
		return -1, offset
	}
	return int(found), offset + at
}
