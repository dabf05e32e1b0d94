// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// madeUpPackets returns packets as they begin flows, the same ones every time: TCP and
// UDP over IPv4 and IPv6, payload that looks like a TLS record, a text or noise.
// Its length is even over its logarithm, 16 to 1400 bytes (median 150, mean 310):
// most first packets of a flow are short, some are full. The paper's
// convolutions skip padding, so the lengths decide what they cost.
func madeUpPackets(n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	packets := make([][]byte, n)
	for i := range packets {
		payload := make([]byte, int(16*math.Pow(1400.0/16, rng.Float64())))
		switch i % 3 {
		case 0:
			for j := range payload {
				payload[j] = byte(rng.Uint32())
			}
			copy(payload, []byte{0x16, 3, 1, byte(len(payload) >> 8), byte(len(payload)), 1, 0})
		case 1:
			const text = "GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\n"
			for j := range payload {
				payload[j] = text[j%len(text)]
			}
		default:
			for j := range payload {
				payload[j] = byte(rng.Uint32())
			}
		}
		packets[i] = madeUpPacket(rng, i%3 != 2, i%8 == 7, payload)
	}
	return packets
}

func madeUpPacket(rng *rand.Rand, tcp, v6 bool, payload []byte) []byte {
	l4 := make([]byte, 8)
	proto := byte(17)
	if tcp {
		l4, proto = make([]byte, 20), 6
	}
	binary.BigEndian.PutUint16(l4, uint16(32768+rng.IntN(28000)))
	binary.BigEndian.PutUint16(l4[2:], 443)
	if tcp {
		binary.BigEndian.PutUint32(l4[4:], rng.Uint32())
		binary.BigEndian.PutUint32(l4[8:], rng.Uint32())
		l4[12], l4[13] = 5<<4, 0x18
		binary.BigEndian.PutUint16(l4[14:], 64240)
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(8+len(payload)))
	}
	rest := append(l4, payload...)
	if v6 {
		head := make([]byte, 40)
		head[0] = 6 << 4
		binary.BigEndian.PutUint16(head[4:], uint16(len(rest)))
		head[6], head[7] = proto, 64
		return append(head, rest...)
	}
	head := make([]byte, 20)
	head[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(rest)))
	binary.BigEndian.PutUint16(head[4:], uint16(rng.Uint32()))
	head[6], head[8], head[9] = 0x40, 64, proto
	return append(head, rest...)
}
