// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"time"
)

// Link types of captures (https://www.tcpdump.org/linktypes.html) that dpclass writes.
const (
	LinkEthernet = linkEthernet
	LinkRaw      = linkRaw // the frame begins with the IP header
)

// AppendHeader appends the beginning of a pcapng file with one interface
// (draft-ietf-opsawg-pcapng, sections 4.1 and 4.2): times in ns, and the bytes of a frame
// that are captured at most, 0 for all. The program is the one that writes the file.
func AppendHeader(to []byte, program, iface string, linkType, snap int) []byte {
	order := binary.LittleEndian
	to = appendBlock(to, blockSection, func(b []byte) []byte {
		b = order.AppendUint32(b, byteOrderMagic)
		b = order.AppendUint16(b, 1)
		b = order.AppendUint16(b, 0)
		b = order.AppendUint64(b, ^uint64(0)) // length of the section: not said
		b = appendOption(b, 4, []byte(program))
		return appendOption(b, 0, nil)
	})
	return appendBlock(to, blockInterface, func(b []byte) []byte {
		b = order.AppendUint16(b, uint16(linkType))
		b = order.AppendUint16(b, 0)
		b = order.AppendUint32(b, uint32(snap))
		b = appendOption(b, 2, []byte(iface))
		b = appendOption(b, 9, []byte{9}) // if_tsresol: 10^-9 s
		return appendOption(b, 0, nil)
	})
}

// AppendPacket appends a frame of the interface of AppendHeader, whose length on the wire
// may be more than what was captured (draft-ietf-opsawg-pcapng, section 4.3).
func AppendPacket(to []byte, at time.Time, data []byte, length int) []byte {
	order := binary.LittleEndian
	return appendBlock(to, blockEnhanced, func(b []byte) []byte {
		stamp := uint64(at.UnixNano())
		b = order.AppendUint32(b, 0)
		b = order.AppendUint32(b, uint32(stamp>>32))
		b = order.AppendUint32(b, uint32(stamp))
		b = order.AppendUint32(b, uint32(len(data)))
		b = order.AppendUint32(b, uint32(max(length, len(data))))
		return pad(append(b, data...), len(data))
	})
}

// appendBlock appends a block: its type, its length, what body appends, its length again.
func appendBlock(to []byte, kind uint32, body func([]byte) []byte) []byte {
	order, begin := binary.LittleEndian, len(to)
	to = order.AppendUint32(to, kind)
	to = body(order.AppendUint32(to, 0))
	length := uint32(len(to) - begin + 4)
	order.PutUint32(to[begin+4:], length)
	return order.AppendUint32(to, length)
}

func appendOption(to []byte, code uint16, value []byte) []byte {
	to = binary.LittleEndian.AppendUint16(to, code)
	to = binary.LittleEndian.AppendUint16(to, uint16(len(value)))
	return pad(append(to, value...), len(value))
}

// pad fills up a field of n bytes to a multiple of four.
func pad(to []byte, n int) []byte { return append(to, make([]byte, (4-n%4)%4)...) }
