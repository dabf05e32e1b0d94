// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/dpclass/dpclass/flow"

// xmpp recognises the stream's header, and stanzas of flows whose beginning was not seen
// (RFC 6120, sections 4.2 and 8).
func xmpp(p *Packet) bool {
	b := p.Payload
	switch {
	case starts(b, "<?xml"), starts(b, "<stream:stream"):
		return contains(b, "<stream:stream") || contains(b, "http://etherx.jabber.org/streams") || contains(b, "jabber:client")
	case startsAny(b, "<iq ", "<message ", "<presence"):
		return contains(b, "jabber:") || contains(b, "urn:xmpp:") || p.port(5222, 5269)
	}
	return startsAny(b, "<stream:features", "<starttls xmlns", "<proceed xmlns", "<stream:error")
}

// irc recognises the registration of a client and the answers of a server (RFC 2812,
// sections 3.1 and 5.1; IRCv3, capability negotiation).
func irc(p *Packet) bool {
	b := p.Payload
	text, ended := line(b)
	if !ended && len(b) == p.Length {
		return false
	}
	switch {
	case starts(text, "NICK "):
		return countWords(text) <= 3 && (contains(b, "\nUSER ") || p.port(6665, 6666, 6667, 6668, 6669, 7000))
	case starts(text, "USER "):
		return countWords(text) >= 5 && contains(text, " :")
	case startsAny(text, "CAP LS", "CAP REQ :", "CAP END"):
		return true
	case starts(text, "PASS "):
		return contains(b, "\nNICK ")
	case startsAny(text, "NOTICE AUTH :", "ERROR :Closing Link"):
		return true
	case starts(text, ":"):
		return contains(text, " NOTICE AUTH :") || contains(text, " NOTICE * :") || contains(text, " 001 ") || contains(text, " 020 ") ||
			contains(text, " CAP * LS") || contains(text, " PRIVMSG ") || contains(text, " 433 ")
	case startsAny(text, "JOIN #", "PRIVMSG #"):
		return true
	case startsAny(text, "PING :", "PONG :"):
		return p.port(6665, 6666, 6667, 6668, 6669, 7000)
	}
	return false
}

// oicq recognises packets of QQ: 2, the client's version, a command, a sequence number, the
// user's number, and 3 at the end. Over TCP the packet's length with these two bytes comes
// first. Over UDP this is little to go by, and away from the server's port 8000 the second
// packet with the same version and user decides (fields as in Wireshark's packet-oicq and
// libpurple's header_info.h).
func (g *guess) oicq(p *Packet) bool {
	b, length := p.Payload, p.Length
	if p.Proto == flow.TCP {
		if len(b) < 2 || int(be.Uint16(b)) != length {
			return false
		}
		b, length = b[2:], length-2
	}
	// Users have five digits or more, commands are below 0x1000.
	if len(b) < 12 || len(b) < length || b[0] != 2 || b[length-1] != 3 || b[1] == 0 || b[1] > 0x3f || b[3] > 0x0f {
		return false
	}
	version, user := be.Uint16(b[1:]), be.Uint32(b[7:])
	if user < 10_000 || user == 0xffffffff {
		return false
	}
	if p.Proto == flow.TCP || p.port(8000) {
		return true
	}
	before, seen := g.recall(flow.ProtocolOICQ, true, user)
	g.keep(flow.ProtocolOICQ, true, user, version)
	return seen && before == version
}

// mmtls recognises the records of WeChat: the types of TLS and 0x19 for early data, version
// 0xf103 or 0xf104, a length (Citizen Lab, Should we chat, too?, 2024). Each record ends
// where the next begins or the segment ends, or is longer than the segment.
func mmtls(p *Packet) bool {
	b := p.Payload
	for first := true; ; first = false {
		if len(b) < 5 {
			return !first && (len(b) == 0 || b[0] >= 0x15 && b[0] <= 0x19)
		}
		n := int(be.Uint16(b[3:]))
		switch b[0] {
		case 0x15, 0x16, 0x17, 0x19:
		default:
			return false
		}
		if b[1] != 0xf1 || b[2] != 3 && b[2] != 4 || n == 0 {
			return false
		}
		if n >= len(b)-5 {
			return true
		}
		b = b[5+n:]
	}
}

// isMMTLSRequest reports whether a request of HTTP carries the records of WeChat: its path
// is "/mmtls/" and a number.
func isMMTLSRequest(b []byte) bool {
	const prefix = "POST /mmtls/"
	if !starts(b, prefix) {
		return false
	}
	number := b[len(prefix):]
	n := 0
	for n < len(number) && n <= 16 && (number[n] >= '0' && number[n] <= '9' || number[n] >= 'a' && number[n] <= 'f') {
		n++
	}
	return n >= 1 && n <= 16 && starts(number[n:], " HTTP/1.")
}

// whatsapp recognises the first bytes of a chat connection: "WA", a protocol version and the
// version of the dictionary, then the length of the first frame, in three bytes. "ED", 0, 1
// and routing information with its length may come before, each in a segment of its own or
// not.
func (g *guess) whatsapp(p *Packet) bool {
	b := p.Payload
	if starts(b, "ED\x00\x01") {
		if len(b) == 4 && p.Length == 4 && g.first(p) {
			g.keep(flow.ProtocolWhatsApp, p.FromA, 0, 0)
			return false
		}
		return whatsappRouted(b[4:])
	}
	if parts, ok := g.recall(flow.ProtocolWhatsApp, p.FromA, 0); ok {
		if parts == 0 && len(b) > 3 && b[0] == 0 && b[1] == 0 && p.Length == 3+int(b[2]) {
			g.keep(flow.ProtocolWhatsApp, p.FromA, 0, 1) // the routing information alone
			return false
		}
		return whatsappRouted(b) || parts == 1 && whatsappHead(b)
	}
	return g.first(p) && len(b) >= 8 && whatsappHead(b) && b[4] == 0
}

// whatsappRouted reports whether routing information and the header are here.
func whatsappRouted(b []byte) bool {
	if len(b) < 3 || b[0] != 0 || b[1] != 0 {
		return false
	}
	n := int(b[2])
	return n > 0 && len(b) >= 3+n && whatsappHead(b[3+n:])
}

func whatsappHead(b []byte) bool {
	return len(b) >= 4 && b[0] == 'W' && b[1] == 'A' && b[2] >= 1 && b[2] <= 15 && b[3] <= 15
}

// mtproto recognises what clients without obfuscation send first: the marker of a transport
// with a length that fits, or in the abridged transport the request for a new key (Telegram,
// MTProto transports; creating an authorization key).
func (g *guess) mtproto(p *Packet) bool {
	b := p.Payload
	if !g.first(p) || len(b) < 8 {
		return false
	}
	switch n := int(le.Uint32(b[4:])); {
	case starts(b, "\xee\xee\xee\xee"):
		return n >= 20 && n%4 == 0 && n == p.Length-8
	case starts(b, "\xdd\xdd\xdd\xdd"):
		return n >= 20 && n == p.Length-8
	case b[0] == 0xef:
		// A message without a key: key 0, message number, length, req_pq or req_pq_multi.
		return p.Length == 42 && len(b) >= 26 && b[1] == 40/4 && zeros(b[2:10]) && le.Uint32(b[18:]) == 20 &&
			(le.Uint32(b[22:]) == 0x60469778 || le.Uint32(b[22:]) == 0xbe7e8ef1)
	}
	return false
}
