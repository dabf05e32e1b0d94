// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

// bittorrentTCP recognises the handshake of peers (BEP 3, "peer protocol").
func bittorrentTCP(p *Packet) bool { return starts(p.Payload, "\x13BitTorrent protocol") }

// bittorrentUDP recognises the DHT (BEP 5), UDP trackers (BEP 15), local discovery (BEP 14)
// and uTP (BEP 29).
func (g *guess) bittorrentUDP(p *Packet) bool {
	b := p.Payload
	switch b[0] {
	case 'd':
		return startsAny(b, "d1:ad2:id20:", "d1:rd2:id20:", "d1:eli", "d2:ip6:", "d2:ip18:", "d1:q4:ping", "d1:y1:", "d1:ad2:bs", "d1:rd2:ip") &&
			(contains(b, "1:y1:") || len(b) < p.Length || len(b) > 512)
	case 'B':
		return starts(b, "BT-SEARCH * HTTP/1.1\r\n")
	case 0:
		return p.Length == 16 && has(b, 0, "\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00")
	case 0x01, 0x11, 0x21, 0x31, 0x41:
		return g.utp(p)
	}
	return false
}

// utp recognises a connection's first packet by its fixed fields, and any other by a second
// one of the connection: the identifiers of both sides differ by one at most (BEP 29,
// "header format" and "connection setup").
func (g *guess) utp(p *Packet) bool {
	b := p.Payload
	if len(b) < 20 || b[1] > 4 {
		return false
	}
	kind, id, seq := b[0]>>4, be.Uint16(b[2:]), be.Uint16(b[16:])
	// The extensions must fit.
	at := 20
	for next := b[1]; next != 0; {
		if at+2 > len(b) || b[at] > 4 || b[at+1] < 4 || b[at+1]%4 != 0 {
			return false
		}
		next, at = b[at], at+2+int(b[at+1])
		if at > p.Length {
			return false
		}
	}
	if kind == 0 && at < len(b) && starts(b[at:], "\x13BitTorrent protocol") {
		return true
	}
	if kind == 4 {
		if !zeros(b[8:12]) || be.Uint16(b[18:]) != 0 && seq != 1 {
			return false
		}
		if seq == 1 && be.Uint16(b[18:]) == 0 && p.Length == at {
			return true
		}
	}
	if kind != 0 && p.Length != at || kind == 0 && p.Length == at {
		return false // only data packets have data
	}
	if be.Uint32(b[12:]) > 1<<26 { // window
		return false
	}
	if id == 0 || zeros(b[4:8]) { // identifier, time
		return false
	}
	// The number follows that of the same side, or acknowledges one of the other side.
	const near = 16
	before, ok := g.recall(flow.ProtocolBitTorrent, p.FromA, uint32(id))
	ok = ok && seq-before <= near
	for _, other := range [...]uint16{id - 1, id, id + 1} {
		if sent, seen := g.recall(flow.ProtocolBitTorrent, !p.FromA, uint32(other)); seen && sent-be.Uint16(b[18:])+near <= 2*near {
			ok = true
		}
	}
	g.keep(flow.ProtocolBitTorrent, p.FromA, uint32(id), seq)
	return ok
}

// gnutella recognises the handshake of a connection, and messages over UDP by type, hops and
// length (Gnutella 0.4 specification, "message header"; Gnutella 0.6, section 2.1.1).
func gnutella(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.TCP {
		return startsAny(b, "GNUTELLA CONNECT/", "GNUTELLA/0.")
	}
	if starts(b, "GND") {
		// The reliable layer: flags, number, part, count; an acknowledgement has no count.
		return len(b) >= 8 && b[6] >= 1 && (b[7] == 0 || b[6] <= b[7])
	}
	if len(b) < 23 || b[17] > 7 || b[18] > 7 || b[17]+b[18] == 0 || int64(le.Uint32(b[19:]))+23 != int64(p.Length) {
		return false
	}
	switch b[16] {
	case 0x00, 0x01, 0x02, 0x30, 0x31, 0x32, 0x40, 0x80, 0x81:
		return true
	}
	return false
}

// bitcoin recognises the message header: network, command, length (Bitcoin developer
// reference, "message headers").
func bitcoin(p *Packet) bool {
	b := p.Payload
	if len(b) < 24 {
		return false
	}
	switch be.Uint32(b) {
	case 0xf9beb4d9, 0x0b110907, 0xfabfb5da, 0x1c163f28:
	default:
		return false
	}
	end := bytes.IndexByte(b[4:16], 0)
	return end > 0 && printable(b[4:4+end]) && zeros(b[4+end:16]) && le.Uint32(b[16:]) <= 32<<20
}
