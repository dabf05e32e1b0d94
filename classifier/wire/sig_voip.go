// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/dpclass/dpclass/flow"

// stun recognises STUN messages by type, length and magic cookie (RFC 8489, section 5), and
// those without a cookie by their attributes (RFC 3489, section 11).
func stun(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.TCP && len(b) > 22 && be.Uint32(b[6:]) == 0x2112a442 && int(be.Uint16(b)) <= p.Length-2 {
		b = b[2:] // RFC 4571 framing of ICE over TCP (RFC 6544, section 3)
	}
	if len(b) < 20 || b[0]&0xc0 != 0 {
		return false
	}
	length := int(be.Uint16(b[2:]))
	if be.Uint32(b[4:]) == 0x2112a442 {
		// Microsoft's variant does not pad its last attribute (MS-TURN, section 2.2).
		return length%4 == 0 && length+20 <= p.Length || length+20 == p.Length
	}
	if length+20 != p.Length || length < 4 || length > 548 {
		return false
	}
	switch be.Uint16(b) {
	case 0x0001, 0x0101, 0x0111, 0x0002, 0x0102, 0x0112, 0x0003, 0x0103, 0x0113, 0x0004, 0x0115:
	default:
		return false
	}
	rest := b[20:]
	for len(rest) >= 4 {
		kind, n := be.Uint16(rest), int(be.Uint16(rest[2:]))
		if !p.port(3478) && (kind == 0 || kind > 0x30 && kind < 0x8000 || kind > 0x80ff && kind < 0xc000) {
			return false
		}
		n = (n + 3) &^ 3
		if n > len(rest)-4 {
			return len(b) < p.Length
		}
		rest = rest[4+n:]
	}
	return len(rest) == 0 || len(b) < p.Length
}

// channel recognises ChannelData messages (RFC 8656, section 12.4): the second one of a
// channel decides, and RTP or RTCP inside shows at once what the channel is for.
func (g *guess) channel(p *Packet) flow.Protocol {
	b := p.Payload
	if len(b) < 5 || b[0] < 0x40 || b[0] > 0x4f {
		return flow.ProtocolUnknown
	}
	n := int(be.Uint16(b[2:]))
	if n+4 > p.Length || p.Length > (n+4+3)&^3 {
		return flow.ProtocolUnknown
	}
	inner := b[4:min(len(b), 4+n)]
	if len(inner) > 0 {
		if found := g.media(p, inner, n); found != flow.ProtocolUnknown {
			return found
		}
	}
	if g.twice(flow.ProtocolSTUN, p, uint32(be.Uint16(b)), uint16(g.packets)) {
		return flow.ProtocolSTUN
	}
	return flow.ProtocolUnknown
}

// media recognises RTP and RTCP in a datagram, or in what another header carries. length is
// the length on the wire.
func (g *guess) media(p *Packet, b []byte, length int) flow.Protocol {
	switch {
	case len(b) < 8 || b[0]&0xc0 != 0x80:
	case b[1] >= 192 && b[1] <= 223:
		if g.rtcp(p, b, length) {
			return flow.ProtocolRTCP
		}
	case g.rtp(p, b, length):
		return flow.ProtocolRTP
	}
	return flow.ProtocolUnknown
}

// rtp recognises the second packet of a source: version 2, payload type, SSRC, and sequence
// numbers that follow each other (RFC 3550, section 5.1; RFC 7983, section 7).
func (g *guess) rtp(p *Packet, b []byte, length int) bool {
	if len(b) < 12 || b[0]&0xc0 != 0x80 {
		return false
	}
	kind := b[1] & 0x7f
	if kind > 34 && kind < 96 { // unassigned, or RTCP's range
		return false
	}
	header := 12 + 4*int(b[0]&0x0f)
	if header > length {
		return false
	}
	if b[0]&0x10 != 0 && len(b) >= header+4 { // extension
		if header += 4 + 4*int(be.Uint16(b[header+2:])); header > length {
			return false
		}
	}
	if b[0] == 0x81 && int(be.Uint16(b[2:])) == length {
		return false // BACnet, where the length is
	}
	ssrc := be.Uint32(b[8:])
	if ssrc == 0 && be.Uint32(b[4:]) == 0 {
		return false
	}
	return g.twice(flow.ProtocolRTP, p, ssrc^uint32(kind)<<24, be.Uint16(b[2:]))
}

// rtcp recognises a compound packet: a sender or receiver report whose length fits its
// number of blocks, first (RFC 3550, sections 6.1 and 6.4). Other packets that come alone
// (RFC 5506) decide with a second one of the same sender. SRTCP appends an index and a tag.
func (g *guess) rtcp(p *Packet, b []byte, length int) bool {
	if len(b) < 8 || b[0]&0xc0 != 0x80 || b[1] < 200 || b[1] > 207 {
		return false
	}
	words, count := int(be.Uint16(b[2:])), int(b[0]&0x1f)
	if 4*(words+1) > length || words == 0 {
		return false
	}
	switch b[1] {
	case 200:
		return words >= 6+6*count && words <= 6+6*count+8
	case 201:
		if words == 1 && count == 0 && length == 8 || words >= 1+6*count && words <= 1+6*count+8 {
			return length > 8 || g.twice(flow.ProtocolRTCP, p, be.Uint32(b[4:]), uint16(g.packets))
		}
	case 204, 205, 206, 207:
		if rest := length - 4*(words+1); rest == 0 || rest == 14 || rest == 8 || rest == 20 || rest == 12 {
			return g.twice(flow.ProtocolRTCP, p, be.Uint32(b[4:]), uint16(g.packets))
		}
	}
	return false
}

// dtls recognises a record by type, version, epoch and length (RFC 6347, section 4.1;
// RFC 9147, section 4).
func dtls(p *Packet) bool {
	b := p.Payload
	if len(b) < 14 || b[0] < 20 || b[0] > 26 {
		return false
	}
	version := be.Uint16(b[1:])
	if version != 0xfeff && version != 0xfefd && version != 0x0100 {
		return false
	}
	n := int(be.Uint16(b[11:]))
	if n == 0 || n+13 > p.Length {
		return false
	}
	if rest := b[min(len(b), n+13):]; len(rest) >= 3 && be.Uint16(rest[1:]) != version && rest[0]&0xe0 != 0x20 {
		return false // another record follows
	}
	return version != 0x0100 || b[0] == 22 || n+13 == p.Length
}

// sip recognises request lines and status lines (RFC 3261, sections 7.1 and 7.2).
func sip(p *Packet) bool {
	b := p.Payload
	if starts(b, "SIP/2.0 ") {
		return len(b) >= 11 && digits(b[8:11]) == 3
	}
	for _, method := range [...]string{"INVITE ", "ACK ", "BYE ", "CANCEL ", "OPTIONS ", "REGISTER ", "PRACK ", "SUBSCRIBE ", "NOTIFY ",
		"PUBLISH ", "INFO ", "REFER ", "MESSAGE ", "UPDATE "} {
		if starts(b, method) {
			rest := b[len(method):]
			if startsAnyFold(rest, "SIP:", "SIPS:", "TEL:", "URN:") {
				return true
			}
			text, _ := line(rest)
			return len(text) > 8 && string(text[len(text)-8:]) == " SIP/2.0"
		}
	}
	return false
}

// mgcp recognises command lines, and on the registered ports response lines (RFC 3435,
// sections 3.2.1 and 3.3).
func mgcp(p *Packet) bool {
	b := p.Payload
	text, _ := line(b)
	if startsAnyFold(text, "EPCF ", "CRCX ", "MDCX ", "DLCX ", "RQNT ", "NTFY ", "AUEP ", "AUCX ", "RSIP ") {
		return contains(text, " MGCP ") && digits(text[5:]) > 0
	}
	return p.port(2427, 2727) && len(text) > 4 && digits(text) == 3 && text[3] == ' ' && digits(text[4:]) > 0
}

// iax2 recognises full frames that open a call or ask a peer: the information elements fill
// the frame (RFC 5456, sections 8.1.1 and 8.6).
func iax2(p *Packet) bool {
	b := p.Payload
	if len(b) < 12 || b[0]&0x80 == 0 || b[10] != 6 || b[11] == 0 || b[11] > 0x28 {
		return false
	}
	if p.Length == 12 {
		return p.port(4569)
	}
	if b[8] > 8 || b[9] > 8 {
		return false
	}
	rest := b[12:]
	for len(rest) >= 2 {
		if rest[0] == 0 || rest[0] > 0x40 || int(rest[1]) > len(rest)-2 {
			return len(b) < p.Length && rest[0] != 0 && rest[0] <= 0x40
		}
		rest = rest[2+int(rest[1]):]
	}
	return len(rest) == 0
}

// mumble recognises the ping of a client that lists servers, and the answer with the same
// identifier and the server's version (Mumble protocol documentation, "UDP ping").
func (g *guess) mumble(p *Packet) bool {
	b := p.Payload
	switch {
	case p.Length == 12 && len(b) == 12 && zeros(b[:4]):
		g.keep(flow.ProtocolMumble, p.FromA, be.Uint32(b[4:])^be.Uint32(b[8:]), 0)
	case p.Length == 24 && len(b) == 24 && b[0] == 0 && b[1] == 1:
		_, ok := g.recall(flow.ProtocolMumble, !p.FromA, be.Uint32(b[4:])^be.Uint32(b[8:]))
		return ok || p.port(64738)
	}
	return false
}

// teamspeak recognises the first packets of a TeamSpeak 3 client and server by the marker
// that replaces the signature (TS3INIT1).
func teamspeak(p *Packet) bool { return starts(p.Payload, "TS3INIT1") }

// zoom recognises packets on the way to or from Zoom's servers by their header: type 5, a
// number that counts, the session, the direction, the kind of media. Between two clients the
// header of audio, video or a shared screen is the first, and RTP inside decides (Michel et
// al., Enabling passive measurement of Zoom performance, IMC 2022, section 4).
func (g *guess) zoom(p *Packet) bool {
	b := p.Payload
	if len(b) < 9 {
		return false
	}
	var at int
	switch b[0] {
	case 5:
		return (b[7] == 0 || b[7] == 4) && b[8] >= 10 && b[8] <= 36 && !zeros(b[3:7]) &&
			g.twice(flow.ProtocolZoom, p, be.Uint32(b[3:]), be.Uint16(b[1:]))
	case 13:
		at = 27
	case 15:
		at = 19
	case 16:
		at = 24
	default:
		return false
	}
	return len(b) >= at+12 && g.rtp(p, b[at:], p.Length-at)
}

// telegramVoice recognises packets between a client and a reflector: after the call's tag
// of 16 bytes, twelve 0xff and the kind of packet, each with its length: a ping, a question
// for the client's own address, the answer, the other client's addresses (libtgvoip). Silence
// in RTP (G.711, mu-law) is 0xff too, but also in the place of the tag.
func telegramVoice(p *Packet) bool {
	b := p.Payload
	if len(b) < 32 || be.Uint64(b[16:]) != 1<<64-1 || be.Uint32(b[24:]) != 1<<32-1 || be.Uint32(b[12:]) == 1<<32-1 {
		return false
	}
	switch le.Uint32(b[28:]) {
	case 0xffffffff:
		return p.Length == 32
	case 0xfffffffe:
		return p.Length == 40
	case 0xc01572c7, 0x27d9371c:
		return p.Length >= 60
	}
	return false
}

// whatsappVoice recognises STUN messages to a relay of WhatsApp: types from 0x0800 that no
// specification has, or an allocation with an attribute in the place of the transport that
// TURN demands (WhatsApp Call Research Group, WARP, STUN and relay media transport).
func whatsappVoice(p *Packet) bool {
	b := p.Payload
	if len(b) < 24 || be.Uint32(b[4:]) != 0x2112a442 || be.Uint16(b[20:])&^7 != 0x4000 || !stun(p) {
		return false
	}
	kind := be.Uint16(b)
	return kind >= 0x0800 && kind <= 0x0805 || kind == 0x0003
}

// discord recognises the discovery of a voice client's own address (Discord developer
// documentation, Voice connections, IP discovery), and the packets that keep its port open:
// a marker and a number that counts.
func discord(p *Packet) bool {
	b := p.Payload
	if p.Length == 8 && len(b) == 8 && be.Uint32(b) == 0x1337cafe {
		return b[7] == 0
	}
	return p.Length == 74 && len(b) >= 74 && b[0] == 0 && (b[1] == 1 && zeros(b[8:74]) || b[1] == 2 && digits(b[8:]) > 0 && b[71] == 0) &&
		b[2] == 0 && b[3] == 70
}

// rtsp recognises request and status lines (RFC 7826, section 20; RFC 2326, sections 6 and 7).
func rtsp(p *Packet) bool {
	b := p.Payload
	if startsAny(b, "RTSP/1.0 ", "RTSP/2.0 ") {
		return true
	}
	if !startsAny(b, "OPTIONS ", "DESCRIBE ", "SETUP ", "PLAY ", "PAUSE ", "TEARDOWN ", "ANNOUNCE ", "RECORD ", "GET_PARAMETER ",
		"SET_PARAMETER ", "REDIRECT ") {
		return false
	}
	text, _ := line(b)
	return contains(text, " RTSP/1.0") || contains(text, " RTSP/2.0") || contains(text, " rtsp://") || contains(text, " rtspu://")
}

// rtmp recognises C0 and C1, or S0 and S1: version 3, four bytes of time, and four zero
// bytes or the version of a Flash player (Adobe RTMP 1.0, section 5.2).
func (g *guess) rtmp(p *Packet) bool {
	b := p.Payload
	if !g.first(p) || len(b) < 9 || b[0] != 3 || p.Length < 1000 || p.Length > 1+1536 && p.Length != 1+2*1536 {
		return false // the client waits after C1, a server sends S2 as well
	}
	return zeros(b[5:9]) || b[5] == 0x80 && b[6] == 0 && b[7] <= 16 || p.port(1935)
}
