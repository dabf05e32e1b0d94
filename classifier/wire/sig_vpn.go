// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

// OpenVPN's opcodes, the upper five bits of the first byte (OpenVPN, ssl_pkt.h).
const (
	openvpnControl      = 4
	openvpnAck          = 5
	openvpnData1        = 6
	openvpnResetClient2 = 7
	openvpnResetServer2 = 8
	openvpnData2        = 9
	openvpnResetClient3 = 10
)

// openvpn recognises the packets that open a session, without authentication of the control
// channel, with it (tls-auth) and with encryption (tls-crypt); in flows whose beginning was
// not seen, two packets with the same session or peer and packet numbers that follow each
// other (OpenVPN, ssl_pkt.h; openvpn-rfc, sections "Control channel" and "Data channel").
func (g *guess) openvpn(p *Packet) bool {
	b, length := p.Payload, p.Length
	if p.Proto == flow.TCP { // each packet has its length in front
		if len(b) < 3 || int(be.Uint16(b))+2 > p.Length {
			return false
		}
		length = int(be.Uint16(b))
		b = b[2:min(len(b), 2+length)]
	}
	if len(b) < 10 || length < 10 {
		return false
	}
	opcode, key := b[0]>>3, b[0]&7
	switch opcode {
	case openvpnResetClient2, openvpnResetClient3:
		// No acknowledgements; with tls-crypt-v2 the client's key follows.
		return key == 0 && openvpnReset(b, length, 5, opcode == openvpnResetClient3)
	case openvpnResetServer2:
		// Acknowledges the client's packet 0, and names the client's session: 26 bytes.
		if key != 0 {
			return false
		}
		if length == 26 && len(b) == 26 {
			return b[9] == 1 && zeros(b[10:14]) && zeros(b[22:26])
		}
		return openvpnReset(b, length, 17, false)
	case openvpnControl, openvpnAck:
		session := be.Uint32(b[1:]) ^ be.Uint32(b[5:])
		if bytes.Count(b[1:9], []byte{0}) > 2 { // it is random
			return false
		}
		if p.Proto == flow.UDP && opcode == openvpnAck && length == 22 && len(b) == 22 && b[9] == 1 {
			return b[10] == 0 && b[11] == 0 && b[12] == 0 // the number of an acknowledged packet is small
		}
		number, ok := openvpnNumber(b)
		return ok && g.twice(flow.ProtocolOpenVPN, p, session, number)
	case openvpnData2:
		// The peer's number, then the packet's, 1 and up.
		return b[4] == 0 && length >= 24 && g.twice(flow.ProtocolOpenVPN, p, be.Uint32(b)^be.Uint32(b[4:])&0xffff0000, be.Uint16(b[6:]))
	case openvpnData1:
		// Only with ciphers that have the packet's number in front.
		return b[1] == 0 && length >= 24 && g.twice(flow.ProtocolOpenVPN, p, uint32(b[0])<<24|be.Uint32(b[1:])>>16, be.Uint16(b[3:]))
	}
	return false
}

// openvpnReset recognises the layouts of a packet that opens a session. body is the length
// of what follows the session's number and the authentication: acknowledgements and packet
// number.
func openvpnReset(b []byte, length, body int, moreMayFollow bool) bool {
	if zeros(b[1:9]) {
		return false
	}
	// Without authentication: an empty list of acknowledgements, packet 0.
	if body == 5 && length == 14 {
		return len(b) == 14 && zeros(b[9:14])
	}
	// tls-auth: the HMAC of MD5, SHA-1, SHA-256, SHA-384 or SHA-512, packet number and time.
	for _, hmac := range [...]int{16, 20, 28, 32, 48, 64} {
		at := 9 + hmac
		if length == at+8+body && len(b) == length && zeros(b[at:at+3]) && b[at+3] <= 8 && plausibleTime(be.Uint32(b[at+4:])) {
			acks := b[at+8]
			return body == 5 && acks == 0 && zeros(b[at+9:at+13]) || body == 17 && acks == 1
		}
	}
	// tls-crypt: packet number and time, a tag of 32 bytes, the rest is encrypted.
	if length == 9+8+32+body || moreMayFollow && length > 9+8+32+body {
		return len(b) >= 17 && (b[9] == 0 || b[9] == 0x0f) && b[10] == 0 && b[11] == 0 && b[12] <= 8 && plausibleTime(be.Uint32(b[13:]))
	}
	return false
}

// openvpnNumber returns a control packet's number from where one of the layouts has a small
// one: with a time after it (tls-crypt and tls-auth), or after the acknowledgements. QUIC's
// connection identifiers are where the session's number is, so that it alone says little.
func openvpnNumber(b []byte) (number uint16, ok bool) {
	for _, hmac := range [...]int{0, 16, 20, 28, 32, 48, 64} {
		if at := 9 + hmac; len(b) >= at+8 && be.Uint32(b[at:]) < 1<<12 && plausibleTime(be.Uint32(b[at+4:])) {
			return be.Uint16(b[at+2:]), true
		}
	}
	acks := int(b[9])
	at := 10 + 4*acks
	if acks > 0 {
		at += 8
	}
	if acks <= 8 && b[0]>>3 == openvpnControl && len(b) >= at+4 && be.Uint32(b[at:]) < 1<<12 {
		return be.Uint16(b[at+2:]), true
	}
	return 0, false
}

// plausibleTime reports whether a Unix time lies between 2001 and 2065.
func plausibleTime(t uint32) bool { return t >= 1_000_000_000 && t < 3_000_000_000 }

// wireguard recognises the four messages by type, zero bytes and size (WireGuard whitepaper,
// section 5.4). Cloudflare's clients write their number into the zero bytes; the empty field
// mac2 is enough for an initiation. Data packets decide in pairs: same receiver, counters
// that follow each other.
func (g *guess) wireguard(p *Packet) bool {
	b := p.Payload
	if len(b) < 16 {
		return false
	}
	reserved := b[1] == 0 && b[2] == 0 && b[3] == 0
	switch b[0] {
	case 1:
		return p.Length == 148 && (reserved && !zeros(b[4:8]) || len(b) >= 148 && zeros(b[132:148]) && !zeros(b[116:132]))
	case 2:
		return p.Length == 92 && reserved && !zeros(b[4:12]) && (len(b) < 92 || zeros(b[76:92]) || p.port(51820))
	case 3:
		return p.Length == 64 && reserved && !zeros(b[8:16])
	case 4:
		counter := le.Uint64(b[8:])
		if !reserved || p.Length < 32 || p.Length%16 != 0 || counter >= 1<<40 {
			return false
		}
		return g.twice(flow.ProtocolWireGuard, p, le.Uint32(b[4:])^uint32(counter>>16), uint16(counter))
	}
	return false
}

// ike recognises the header by version, exchange type and length (RFC 7296, section 3.1;
// RFC 2408, section 3.1). On port 4500 four zero bytes precede it, and ESP shares the port:
// there, two packets of a security association decide (RFC 3948, section 2).
func (g *guess) ike(p *Packet) bool {
	b, length := p.Payload, p.Length
	if p.Proto == flow.UDP && p.port(4500) && len(b) >= 8 && !zeros(b[:4]) && be.Uint32(b) >= 256 && p.Length >= 24 && b[4] == 0 {
		if g.twice(flow.ProtocolIKE, p, be.Uint32(b)^be.Uint32(b[4:])>>16, be.Uint16(b[6:])) {
			return true
		}
	}
	if len(b) >= 4 && zeros(b[:4]) {
		b, length = b[4:], length-4
	}
	if len(b) < 28 || zeros(b[:8]) || int64(be.Uint32(b[24:])) != int64(length) {
		return false
	}
	payload, version, exchange := b[16], b[17], b[18]
	switch version {
	case 0x10:
		return payload <= 25 && (exchange >= 1 && exchange <= 6 || exchange == 32 || exchange == 33)
	case 0x20:
		return (payload == 0 || payload >= 33 && payload <= 55) && exchange >= 34 && exchange <= 45
	}
	return false
}

// l2tp recognises control messages by flags, version, length and the first attribute, the
// message type (RFC 2661, sections 3.1 and 4.1); on port 1701 also PPP frames.
func l2tp(p *Packet) bool {
	b := p.Payload
	if len(b) < 12 || b[1]&0x0f != 2 {
		return false
	}
	if b[0]&0xcf == 0xc8 {
		if int(be.Uint16(b[2:])) != p.Length {
			return false
		}
		// An acknowledgement has no attributes.
		return p.Length == 12 && p.port(1701) || len(b) >= 20 && b[12]&0x80 != 0 && b[13] == 8 && zeros(b[14:18])
	}
	if !p.port(1701) || b[0]&0x80 != 0 || b[0]&0x0d != 0 {
		return false
	}
	at := 6
	if b[0]&0x40 != 0 {
		if int(be.Uint16(b[2:])) != p.Length {
			return false
		}
		at += 2
	}
	if b[0]&0x02 != 0 {
		at += 2
	}
	return has(b, at, "\xff\x03") || has(b, at, "\x00\x21")
}

// pptp recognises control messages by their length and magic cookie (RFC 2637, section 2.1).
func pptp(p *Packet) bool {
	b := p.Payload
	return len(b) >= 10 && int(be.Uint16(b)) <= p.Length && be.Uint16(b[2:]) == 1 && be.Uint32(b[4:]) == 0x1a2b3c4d
}

// tailscale recognises the magic of its discovery messages (Tailscale, disco.go).
func tailscale(p *Packet) bool { return starts(p.Payload, "TS\xf0\x9f\x92\xac") && p.Length >= 62 }

// socks recognises a client's greeting that the server answers (RFC 1928, section 3; SOCKS 4:
// SOCKS protocol, section 1), and a SOCKS 5 request with a domain name (section 4).
func (g *guess) socks(p *Packet) bool {
	b := p.Payload
	switch {
	case len(b) != p.Length || len(b) < 2:
	case b[0] == 5 && b[1] >= 1 && b[1] <= 8 && len(b) == 2+int(b[1]):
		g.keep(flow.ProtocolSOCKS, p.FromA, 5, 0)
		for i, method := range b[2:] { // each method once
			for _, other := range b[2 : 2+i] {
				if method == other {
					g.keep(flow.ProtocolSOCKS, p.FromA, 5, 1)
				}
			}
		}
	case b[0] == 5 && len(b) == 2: // the method, or none
		if bad, ok := g.recall(flow.ProtocolSOCKS, !p.FromA, 5); ok && bad == 0 && (b[1] <= 9 || b[1] == 0xff) {
			return true
		}
	case b[0] == 5 && len(b) > 9 && b[1] >= 1 && b[1] <= 3 && b[2] == 0 && b[3] == 3:
		return len(b) == 7+int(b[4]) && printable(b[5:5+int(b[4])])
	case b[0] == 4 && len(b) >= 9 && (b[1] == 1 || b[1] == 2) && b[len(b)-1] == 0:
		g.keep(flow.ProtocolSOCKS, p.FromA, 4, 0)
	case b[0] == 0 && len(b) == 8 && b[1] >= 0x5a && b[1] <= 0x5d:
		_, ok := g.recall(flow.ProtocolSOCKS, !p.FromA, 4)
		return ok
	}
	return false
}

// teredo recognises IPv6 packets, also with an authentication or origin indication in front
// (RFC 4380, section 5.1.1).
func teredo(p *Packet) bool {
	b, length := p.Payload, p.Length
	if len(b) >= 13 && b[0] == 0 && b[1] == 1 {
		n := 13 + int(b[2]) + int(b[3])
		if n > len(b) {
			return false
		}
		b, length = b[n:], length-n
	}
	if len(b) >= 8 && b[0] == 0 && b[1] == 0 {
		b, length = b[8:], length-8
	}
	if len(b) < 40 || b[0]>>4 != 6 || int(be.Uint16(b[4:]))+40 != length {
		return false
	}
	// One of the addresses is of 2001::/32, or a link-local one asks for a router.
	return has(b, 8, "\x20\x01\x00\x00") || has(b, 24, "\x20\x01\x00\x00") ||
		has(b, 8, "\xfe\x80\x00\x00\x00\x00\x00\x00") && (b[24] == 0xff || b[24] == 0xfe) && p.port(3544)
}
