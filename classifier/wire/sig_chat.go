// SPDX-License-Identifier: Apache-2.0

package wire

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
