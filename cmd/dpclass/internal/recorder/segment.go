// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"encoding/binary"

	"github.com/dpclass/dpclass/internal/vector"
)

// Flags of TCP that not every segment of a large packet has (RFC 9293, section 3.1).
const (
	tcpFIN = 1
	tcpPSH = 8
	tcpCWR = 128
)

// segments returns how many packets a packet is on the wire.
func (o offload) segments(p *vector.Packet) int {
	if o.gso == 0 || o.size == 0 {
		return 1
	}
	return max((p.Length-p.Payload+o.size-1)/o.size, 1)
}

// segments hands the packets that are on the wire to each: a packet of up to 64 kB that the
// kernel hands to the device, or has put together from several, in its segments, as
// segmentation writes them; any other packet as it is. A model learns packets as it will see
// them. Checksums that the device would have written are written here, in ip too. A segment
// is valid during the call. ip is the packet from the IP header on, and p what vector.Parse
// says of it.
func segments(ip []byte, p *vector.Packet, o offload, each func(ip []byte, length int) error) error {
	size := o.size
	tcp := o.gso == gsoTCP4 || o.gso == gsoTCP6
	total := min(len(ip), p.Length) - p.Payload
	if !tcp && o.gso != gsoUDP || size == 0 || total <= size || p.Proto == vector.UDP != (o.gso == gsoUDP) {
		if o.partial && len(ip) >= p.Length && !p.First {
			checksums(ip[:p.Length], p.L4, p.Proto, ip[0]>>4 == 6)
		}
		return each(ip, p.Length)
	}
	is6 := ip[0]>>4 == 6
	segment := make([]byte, 0, p.Payload+size)
	seq, id := uint32(0), uint16(0)
	if tcp {
		seq = binary.BigEndian.Uint32(ip[p.L4+4:])
	}
	if !is6 {
		id = binary.BigEndian.Uint16(ip[4:])
	}
	for begin, n := 0, 0; begin < total; begin, n = begin+size, n+1 {
		end := min(begin+size, total)
		segment = append(append(segment[:0], ip[:p.Payload]...), ip[p.Payload+begin:p.Payload+end]...)
		if is6 {
			binary.BigEndian.PutUint16(segment[4:], uint16(len(segment)-40))
		} else {
			binary.BigEndian.PutUint16(segment[2:], uint16(len(segment)))
			binary.BigEndian.PutUint16(segment[4:], id+uint16(n))
		}
		l4 := segment[p.L4:]
		if tcp {
			binary.BigEndian.PutUint32(l4[4:], seq+uint32(begin))
			if end < total {
				l4[13] &^= tcpFIN | tcpPSH
			}
			if n > 0 {
				l4[13] &^= tcpCWR
			}
		} else {
			binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		}
		checksums(segment, p.L4, p.Proto, is6)
		if err := each(segment, len(segment)); err != nil {
			return err
		}
	}
	return nil
}

// checksums writes the checksums of a segment (RFC 1071; RFC 8200, section 8.1).
func checksums(packet []byte, at int, proto uint8, is6 bool) {
	l4, place := packet[at:], 16
	if !is6 {
		binary.BigEndian.PutUint16(packet[10:], 0)
		binary.BigEndian.PutUint16(packet[10:], ^fold(sum(packet[:int(packet[0]&15)*4])))
	}
	if proto == vector.UDP {
		place = 6
	}
	addresses := packet[12:20]
	if is6 {
		addresses = packet[8:40]
	}
	binary.BigEndian.PutUint16(l4[place:], 0)
	check := ^fold(sum(addresses) + uint32(proto) + uint32(len(l4)) + sum(l4))
	if check == 0 && proto == vector.UDP {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(l4[place:], check)
}

// sum adds 16-bit words. 64 kB of them fit into 32 bits.
func sum(data []byte) (total uint32) {
	for ; len(data) >= 2; data = data[2:] {
		total += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		total += uint32(data[0]) << 8
	}
	return total
}

func fold(total uint32) uint16 {
	for total > 0xffff {
		total = total&0xffff + total>>16
	}
	return uint16(total)
}
