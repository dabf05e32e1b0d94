// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"math/rand/v2"
	"net/netip"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

const (
	etherLen = 14
	ipv4Len  = 20
)

// frame builds an Ethernet frame of a flow. TCP frames are ACKs with data.
func frame(proto flow.Proto, src, dst netip.AddrPort, payload int) []byte {
	spec := packettest.Spec{IPv6: src.Addr().Is6(), Proto: uint8(proto), Src: src, Dst: dst, Payload: payload}
	return packettest.Ethernet(spec.Build().Data)
}

// madeUpPayloads returns n payloads like those that begin flows: a TLS record, text or
// noise. They are the same on every call. Lengths are spread evenly on a log scale
// from 16 to 1400 bytes (median 150, mean 310): most first packets of a flow are
// short, some are full. The spread matters because the paper's convolutions skip
// padding, so the length decides what a packet costs.
func madeUpPayloads(n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	payloads := make([][]byte, n)
	for i := range payloads {
		payload := make([]byte, int(16*math.Pow(1400.0/16, rng.Float64())))
		if i%3 == 1 {
			const text = "GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\n"
			for j := range payload {
				payload[j] = text[j%len(text)]
			}
		} else {
			for j := range payload {
				payload[j] = byte(rng.Uint32())
			}
		}
		if i%3 == 0 {
			copy(payload, []byte{0x16, 3, 1, byte(len(payload) >> 8), byte(len(payload)), 1, 0})
		}
		payloads[i] = payload
	}
	return payloads
}

// madeUpPackets returns n IP packets with such payloads: TCP and UDP, IPv4 and
// some IPv6.
func madeUpPackets(n int) [][]byte {
	packets := madeUpPayloads(n)
	for i, payload := range packets {
		spec := packettest.Spec{Proto: packettest.TCP, IPv6: i%8 == 7, Body: payload}
		if i%3 == 2 { // noise
			spec.Proto = packettest.UDP
		}
		packets[i] = spec.Build().Data
	}
	return packets
}
