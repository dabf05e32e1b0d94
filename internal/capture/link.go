// SPDX-License-Identifier: Apache-2.0

package capture

import "encoding/binary"

// Link types of capture files (LINKTYPE_ values, the DLT_ values of raw IP too).
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

	// maxTags is how many 802.1Q and 802.1ad tags are passed over.
	maxTags = 2
)

// findIP returns where the IP header stands in a frame. ok is false where the
// frame holds no IP packet, known where the link type is not read.
func findIP(linkType int, data []byte) (offset int, ok, known bool) {
	kind := 0 // any version
	switch linkType {
	case linkEthernet:
		if len(data) < 14 {
			return 0, false, true
		}
		kind, offset = tags(data, int(binary.BigEndian.Uint16(data[12:])), 14)
	case linkCooked:
		if len(data) < 16 {
			return 0, false, true
		}
		kind, offset = tags(data, int(binary.BigEndian.Uint16(data[14:])), 16)
	case linkCooked2:
		if len(data) < 20 {
			return 0, false, true
		}
		kind, offset = tags(data, int(binary.BigEndian.Uint16(data)), 20)
	case linkNull, linkLoop:
		if len(data) < 4 {
			return 0, false, true
		}
		// The family is in the byte order of the capturing host, which nobody
		// notes. It is below 256, and the version below tells the rest.
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

// tags passes over VLAN tags. It returns the type of what follows them, -1 where
// the frame ends or has more tags.
func tags(data []byte, kind, offset int) (int, int) {
	for range maxTags {
		if kind != 0x8100 && kind != 0x88a8 && kind != 0x9100 {
			break
		}
		if len(data) < offset+4 {
			return -1, offset
		}
		kind = int(binary.BigEndian.Uint16(data[offset+2:]))
		offset += 4
	}
	if kind == 0 {
		return -1, offset
	}
	return kind, offset
}
