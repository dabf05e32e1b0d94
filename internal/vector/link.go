// SPDX-License-Identifier: Apache-2.0

package vector

import "encoding/binary"

// EtherTypes (IEEE 802 numbers, IANA).
const (
	typeIPv4   = 0x0800
	typeIPv6   = 0x86dd
	typePPPoE  = 0x8864 // session stage
	typeMPLS   = 0x8847
	typeMPLSUp = 0x8848 // upstream-assigned labels, once multicast (RFC 5332)
)

const (
	tagHeader   = 4
	maxTags     = 2
	labelHeader = 4
	maxLabels   = 4 // there is a limit because the kernel's parser needs one
	pppoeHeader = 8 // RFC 2516, section 4, and the PPP protocol

	pppoeData = 0x1100 // version 1, type 1, code 0
	pppIPv4   = 0x0021 // RFC 1332
	pppIPv6   = 0x0057 // RFC 5072
)

// Network finds the IP packet in what follows a link-layer header: after up to two VLAN
// tags, and after PPPoE or up to four MPLS labels. kind is the EtherType that the
// link-layer header names. It returns the packet's offset in data and the EtherType of
// IPv4 or IPv6, or the reason why there is none. After MPLS, which names no type, the
// first four bits decide (RFC 4928, section 2).
func Network(kind uint16, data []byte) (offset int, ethertype uint16, reason Reason) {
	for range maxTags {
		if !isTag(kind) {
			break
		}
		if len(data) < offset+tagHeader {
			return offset, 0, Truncated
		}
		kind = binary.BigEndian.Uint16(data[offset+2:])
		offset += tagHeader
	}
	switch {
	case kind == typeIPv4, kind == typeIPv6:
		return offset, kind, OK
	case kind == typePPPoE:
		return pppoe(data, offset)
	case kind == typeMPLS, kind == typeMPLSUp:
		return mpls(data, offset)
	case isTag(kind):
		return offset, 0, VLANDepth
	}
	return offset, 0, NotIP
}

// isTag reports whether an EtherType is a VLAN tag's: 802.1Q, 802.1ad, or QinQ before it.
func isTag(kind uint16) bool { return kind == 0x8100 || kind == 0x88a8 || kind == 0x9100 }

func pppoe(data []byte, offset int) (int, uint16, Reason) {
	if len(data) < offset+pppoeHeader {
		return offset, 0, Truncated
	}
	header := data[offset:]
	if binary.BigEndian.Uint16(header) != pppoeData {
		return offset, 0, NotIP
	}
	switch binary.BigEndian.Uint16(header[6:]) {
	case pppIPv4:
		return offset + pppoeHeader, typeIPv4, OK
	case pppIPv6:
		return offset + pppoeHeader, typeIPv6, OK
	}
	return offset, 0, NotIP
}

func mpls(data []byte, offset int) (int, uint16, Reason) {
	for range maxLabels {
		if len(data) < offset+labelHeader {
			return offset, 0, Truncated
		}
		bottom := data[offset+2]&1 != 0
		offset += labelHeader
		if bottom {
			return version(data, offset)
		}
	}
	return offset, 0, MPLSDepth
}

// version finds out the EtherType of an IP packet.
func version(data []byte, offset int) (int, uint16, Reason) {
	if len(data) <= offset {
		return offset, 0, Truncated
	}
	switch data[offset] >> 4 {
	case 4:
		return offset, typeIPv4, OK
	case 6:
		return offset, typeIPv6, OK
	}
	return offset, 0, NotIP
}
