// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"net/netip"

	"github.com/dpclass/dpclass/flow"
)

const (
	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	tcpLen   = 20
	udpLen   = 8
)

// frame makes an Ethernet frame of a flow, with a right IPv4 header checksum.
// TCP frames are ACKs with data.
func frame(proto flow.Proto, src, dst netip.AddrPort, payload int) []byte {
	l4 := udpLen
	if proto == flow.TCP {
		l4 = tcpLen
	}
	segment := make([]byte, l4+payload)
	binary.BigEndian.PutUint16(segment, src.Port())
	binary.BigEndian.PutUint16(segment[2:], dst.Port())
	if proto == flow.TCP {
		segment[12], segment[13] = tcpLen/4<<4, 0x10
	} else {
		binary.BigEndian.PutUint16(segment[4:], uint16(len(segment)))
	}
	for i := l4; i < len(segment); i++ {
		segment[i] = byte(i)
	}
	ether := make([]byte, etherLen)
	ether[0], ether[6] = 2, 2 // locally administered
	if src.Addr().Is6() {
		binary.BigEndian.PutUint16(ether[12:], 0x86dd)
		ip := make([]byte, ipv6Len)
		ip[0] = 6 << 4
		binary.BigEndian.PutUint16(ip[4:], uint16(len(segment)))
		ip[6], ip[7] = byte(proto), 64
		copy(ip[8:], src.Addr().AsSlice())
		copy(ip[24:], dst.Addr().AsSlice())
		return append(append(ether, ip...), segment...)
	}
	binary.BigEndian.PutUint16(ether[12:], 0x0800)
	ip := make([]byte, ipv4Len)
	ip[0] = 4<<4 | ipv4Len/4
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Len+len(segment)))
	ip[8], ip[9] = 64, byte(proto)
	copy(ip[12:], src.Addr().AsSlice())
	copy(ip[16:], dst.Addr().AsSlice())
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return append(append(ether, ip...), segment...)
}
