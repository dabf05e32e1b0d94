// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

// dns recognises messages by header, first name, type and class (RFC 1035, section 4.1). mDNS,
// LLMNR and NetBIOS names have the same format: the last has names of its own, the others
// are told by their port.
func dns(p *Packet) flow.Protocol {
	b := p.Payload
	if p.Proto == flow.TCP {
		if len(b) < 2 || int(be.Uint16(b)) > p.Length-2 || be.Uint16(b) < 17 {
			return flow.ProtocolUnknown
		}
		b = b[2:]
	}
	if len(b) < 17 {
		return flow.ProtocolUnknown
	}
	flags := be.Uint16(b[2:])
	questions, answers, authorities, additional := be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint16(b[8:]), be.Uint16(b[10:])
	multicast := p.Proto == flow.UDP && p.port(5353)
	response := flags&0x8000 != 0
	opcode := flags >> 11 & 0xf
	if opcode > 8 || opcode == 3 || int(questions)+int(answers)+int(authorities)+int(additional) == 0 {
		return flow.ProtocolUnknown
	}
	// Each question takes five bytes, each record eleven.
	if 12+5*int(questions)+11*(int(answers)+int(authorities)+int(additional)) > p.Length {
		return flow.ProtocolUnknown
	}
	if !multicast && (questions > 1 || questions == 0 && (answers == 0 || !response) || !response && answers > 1) {
		return flow.ProtocolUnknown
	}
	// The first name: labels of up to 63 bytes.
	at, first := 12, 0
	for {
		if at >= len(b) {
			return flow.ProtocolUnknown
		}
		n := int(b[at])
		if n > 63 {
			return flow.ProtocolUnknown
		}
		at++
		if n == 0 {
			break
		}
		if at+n > len(b) || at+n > 12+255 {
			return flow.ProtocolUnknown
		}
		for _, c := range b[at : at+n] {
			if c < ' ' && !multicast || c == 0x7f {
				return flow.ProtocolUnknown
			}
		}
		if first == 0 {
			first = n
		}
		at += n
	}
	if at+4 > len(b) {
		return flow.ProtocolUnknown
	}
	kind, class := be.Uint16(b[at:]), be.Uint16(b[at+2:])
	if first == 32 && encodedName(b[13:45]) && (kind == 0x20 || kind == 0x21 || kind == 10) && class == 1 {
		return flow.ProtocolNetBIOS
	}
	if multicast {
		class &= 0x7fff
	}
	if class != 1 && class != 3 && class != 255 && class != 254 && class != 4 || kind == 0 || kind > 262 && kind != 32768 && kind != 32769 && kind != 65281 {
		return flow.ProtocolUnknown
	}
	switch {
	case multicast:
		return flow.ProtocolMDNS
	case p.port(5355):
		return flow.ProtocolLLMNR
	case first == 0 && !p.port(53): // the root, of which only resolvers ask
		return flow.ProtocolUnknown
	}
	return flow.ProtocolDNS
}

// encodedName reports whether all bytes are of the sixteen letters of an encoded NetBIOS name.
func encodedName(b []byte) bool {
	for _, c := range b {
		if c < 'A' || c > 'P' {
			return false
		}
	}
	return true
}

// netbios recognises datagrams by type and the first name, and requests for a session (RFC
// 1002, sections 4.3 and 4.4).
func netbios(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.TCP {
		return len(b) >= 72 && b[0] == 0x81 && b[1] == 0 && be.Uint16(b[2:]) >= 68 && b[4] == 32 && encodedName(b[5:37]) ||
			len(b) == 4 && p.Length == 4 && starts(b, "\x82\x00\x00\x00") && p.port(139)
	}
	if len(b) < 47 || b[0] < 0x10 || b[0] > 0x16 || b[1]&0xf0 != 0 {
		return false
	}
	return b[0] <= 0x12 && b[14] == 32 && encodedName(b[15:47]) || b[0] >= 0x14 && b[10] == 32 && encodedName(b[11:43])
}

// ntp recognises time packets by mode, version and size, and on other ports than 123 also by
// times that fit each other (RFC 5905, section 7.3); on port 123 also control messages (RFC
// 9327, section 2).
func ntp(p *Packet) bool {
	b := p.Payload
	mode, version := b[0]&7, b[0]>>3&7
	if version < 1 || version > 4 || len(b) < 4 {
		return false
	}
	if p.port(123) {
		switch mode {
		case 1, 2, 3, 4, 5:
			return p.Length >= 48 && p.Length <= 1024 && b[1] <= 16
		case 6:
			return p.Length >= 12 && b[1]&0x1f <= 31
		case 7:
			return p.Length >= 8
		}
		return false
	}
	if len(b) < 48 || (p.Length != 48 && p.Length != 68 && p.Length != 72) || b[1] == 0 || b[1] > 15 || mode != 4 || b[2] > 17 ||
		int8(b[3]) > -3 || int8(b[3]) < -32 {
		return false
	}
	// The server's clock was set within the last day, and it received before it sent.
	set, received, sent := be.Uint32(b[16:]), be.Uint32(b[32:]), be.Uint32(b[40:])
	return sent-received <= 1 && received-set < 86400 && sent > 0xb0000000
}

// snmp recognises messages by their ASN.1: version, community and PDU, or the header of
// version 3 (RFC 3416, section 3; RFC 3412, section 6).
func snmp(p *Packet) bool {
	version, rest, ok := berMessage(p, p.Payload)
	if !ok || len(version) != 1 || len(rest) < 2 {
		return false
	}
	switch version[0] {
	case 0, 1, 2:
		if rest[0] != 0x04 || int(rest[1]) > 127 || len(rest) < int(rest[1])+3 {
			return false
		}
		pdu := rest[2+int(rest[1])]
		return pdu >= 0xa0 && pdu <= 0xa8
	case 3:
		return rest[0] == 0x30 && len(rest) >= 4 && rest[2] == 0x02
	}
	return false
}

// berMessage reads a SEQUENCE that begins with an INTEGER. It returns the integer and what
// follows it.
func berMessage(p *Packet, b []byte) (number, rest []byte, ok bool) {
	if b[0] != 0x30 {
		return nil, nil, false
	}
	n, b, ok := berLength(b[1:])
	if !ok || len(p.Payload)-len(b)+n > p.Length || p.Proto == flow.UDP && len(p.Payload)-len(b)+n != p.Length {
		return nil, nil, false
	}
	if len(b) < 2 || b[0] != 0x02 || b[1] < 1 || b[1] > 4 || len(b) < 2+int(b[1]) {
		return nil, nil, false
	}
	return b[2 : 2+b[1]], b[2+b[1]:], true
}

// berLength reads a definite length of ASN.1's basic encoding (X.690, section 8.1.3).
func berLength(b []byte) (n int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	n, b = int(b[0]), b[1:]
	if n < 0x80 {
		return n, b, true
	}
	size := n & 0x7f
	if size < 1 || size > 4 || len(b) < size {
		return 0, nil, false
	}
	n = 0
	for _, c := range b[:size] {
		n = n<<8 | int(c)
	}
	return n, b[size:], true
}

// ldap recognises messages by their ASN.1: number and operation (RFC 4511, section 4.1.1).
// On the registered ports also messages that SASL protects (RFC 4513, section 5.2.1).
func ldap(p *Packet) bool {
	b := p.Payload
	if b[0] != 0x30 {
		if !p.port(389, 3268) || len(b) < 12 || be.Uint32(b) > 1<<20 {
			return false
		}
		return has(b, 4, "\x05\x04") || has(b, 4, "\x60") || has(b, 4, "\x01\x00\x00\x00") // Kerberos, SPNEGO, NTLM
	}
	number, rest, ok := berMessage(p, b)
	if !ok || len(rest) < 2 || number[0]&0x80 != 0 {
		return false
	}
	switch rest[0] {
	case 0x60, 0x61, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x73, 0x77, 0x78, 0x79:
	case 0x42:
		return rest[1] == 0
	case 0x4a, 0x50:
	default:
		return false
	}
	n, rest, ok := berLength(rest[1:])
	if !ok || n > p.Length {
		return false
	}
	switch {
	case len(rest) == 0:
		return len(b) < p.Length
	case p.port(389, 3268):
		return true
	}
	// The first element of each operation is one of these.
	return rest[0] == 0x02 || rest[0] == 0x04 || rest[0] == 0x0a || rest[0] == 0x80 || rest[0] == 0x30
}

// kerberos recognises messages by their ASN.1: application, version 5 and message type (RFC
// 4120, sections 5.4 and 5.9). Over TCP four bytes of length precede them (section 7.2.2).
func kerberos(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.TCP {
		if len(b) < 8 || b[0] != 0 || int64(be.Uint32(b)) > int64(1<<17) {
			return false
		}
		b = b[4:]
	}
	if len(b) < 10 {
		return false
	}
	application := b[0]
	switch application {
	case 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x74, 0x75, 0x76, 0x7e:
	default:
		return false
	}
	_, b, ok := berLength(b[1:])
	if !ok || len(b) < 2 || b[0] != 0x30 {
		return false
	}
	_, b, ok = berLength(b[1:])
	return ok && len(b) >= 5 && (b[0] == 0xa0 || b[0] == 0xa1) && starts(b[1:], "\x03\x02\x01\x05")
}

// ssdp recognises searches, announcements and their answers (UPnP Device Architecture 2.0,
// section 1).
func ssdp(p *Packet) bool {
	b := p.Payload
	return startsAny(b, "M-SEARCH * HTTP/1.1", "NOTIFY * HTTP/1.1", "M-SEARCH * HTTP/1.0") ||
		startsFold(b, "HTTP/1.1 200 OK") && (p.port(1900) || containsFold(b, "\nUSN:") || containsFold(b, "\nST:"))
}

// dhcp recognises messages by the cookie of the options (RFC 2131, section 3), and those of
// version 6 by options that fill the message (RFC 8415, sections 8, 9 and 21).
func dhcp(p *Packet) bool {
	b := p.Payload
	if len(b) >= 240 && (b[0] == 1 || b[0] == 2) && b[2] <= 16 {
		if be.Uint32(b[236:]) == 0x63825363 {
			return true
		}
	}
	if p.port(67) && p.port(68) && (b[0] == 1 || b[0] == 2) && p.Length >= 236 {
		return true // BOOTP (RFC 951), or cut
	}
	if len(b) < 8 || b[0] < 1 || b[0] > 13 {
		return false
	}
	at := 4
	if b[0] >= 12 { // relayed: hops and two addresses
		at = 34
		if len(b) < at+4 || b[1] > 32 {
			return false
		}
	}
	known := false
	for at+4 <= len(b) {
		code, n := be.Uint16(b[at:]), int(be.Uint16(b[at+2:]))
		if code == 0 || code > 170 {
			return false
		}
		switch code {
		case 1, 2: // identifiers have a type of 1 to 4
			known = known || n >= 4 && at+6 <= len(b) && b[at+4] == 0 && b[at+5] >= 1 && b[at+5] <= 4
		case 8:
			known = known || n == 2 && p.port(546, 547)
		case 9:
			known = known || b[0] >= 12
		}
		at += 4 + n
	}
	return known && (at == p.Length || len(b) < p.Length)
}

// syslog recognises a priority that a version and time, or a month follow (RFC 5424, section
// 6; RFC 3164, section 4.1). On port 514 any text may follow. Over TCP a length may precede
// (RFC 6587, section 3.4.1).
func syslog(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.TCP && b[0] != '<' {
		n := digits(b)
		if n == 0 || n > 5 || !has(b, n, " <") {
			return false
		}
		b = b[n+1:]
	}
	n := digits(b[1:])
	if b[0] != '<' || n < 1 || n > 3 || !has(b, 1+n, ">") {
		return false
	}
	priority := 0
	for _, c := range b[1 : 1+n] {
		priority = 10*priority + int(c-'0')
	}
	if priority > 191 {
		return false
	}
	b = b[n+2:]
	if starts(b, "1 ") && len(b) > 6 && (b[2] == '-' || digits(b[2:]) == 4 && b[6] == '-') {
		return true
	}
	if startsAny(b, "Jan ", "Feb ", "Mar ", "Apr ", "May ", "Jun ", "Jul ", "Aug ", "Sep ", "Oct ", "Nov ", "Dec ") {
		return true
	}
	return p.port(514) && len(b) > 0 && printable(b[:min(len(b), 8)])
}

// radius recognises packets by code, length, and attributes that fill them (RFC 2865,
// sections 3 and 5).
func radius(p *Packet) bool {
	b := p.Payload
	if len(b) < 20 || int(be.Uint16(b[2:])) != p.Length {
		return false
	}
	switch b[0] {
	case 1, 2, 3, 4, 5, 11, 12, 13, 40, 41, 42, 43, 44, 45:
	default:
		return false
	}
	registered := p.port(1812, 1813, 1645, 1646, 3799)
	if p.Length == 20 {
		return registered
	}
	rest := b[20:]
	for len(rest) >= 2 {
		n := int(rest[1])
		if rest[0] == 0 || n < 2 || n > len(rest) {
			return n >= 2 && len(b) < p.Length
		}
		rest = rest[n:]
	}
	return len(rest) == 0 || len(b) < p.Length
}

// mqtt recognises the first packet of a client and the answer, and a ping and its answer
// (MQTT 5.0, sections 3.1, 3.2, 3.12 and 3.13; MQTT 3.1.1); on port 1883 also messages.
func (g *guess) mqtt(p *Packet) bool {
	b := p.Payload
	if len(b) < 2 {
		return false
	}
	registered := p.port(1883)
	length, n := varint(b[1:])
	if n == 0 || n > 4 || length+1+n > p.Length {
		return false
	}
	rest := b[1+n:]
	switch b[0] >> 4 {
	case 1:
		return b[0] == 0x10 && (starts(rest, "\x00\x04MQTT") && len(rest) > 6 && rest[6] >= 3 && rest[6] <= 5 ||
			starts(rest, "\x00\x06MQIsdp\x03"))
	case 2:
		return b[0] == 0x20 && len(rest) >= 2 && rest[0] <= 1 && registered
	case 3:
		if len(rest) < 5 || b[0]&0x06 == 0x06 || !registered {
			return false
		}
		topic := int(be.Uint16(rest))
		return topic > 0 && topic+2 <= length && printable(rest[2:min(len(rest), 2+topic)])
	case 8: // subscribe
		return b[0] == 0x82 && registered
	case 4, 9:
		return b[0]&0x0f == 0 && length >= 2 && length < 64 && registered
	case 12, 13:
		if length != 0 || b[0]&0x0f != 0 || p.Length != 2 {
			return false
		}
		g.keep(flow.ProtocolMQTT, p.FromA, uint32(b[0]), 0)
		_, answer := g.recall(flow.ProtocolMQTT, !p.FromA, uint32(b[0]^0x10))
		return answer
	}
	return false
}

// coap recognises messages by version, token length, code and options (RFC 7252, section 3).
// On other ports than 5683 it has to be a request with a path.
func coap(p *Packet) bool {
	b := p.Payload
	if len(b) < 4 || b[0]>>6 != 1 || b[0]&0x0f > 8 {
		return false
	}
	registered, token, code := p.port(5683), int(b[0]&0x0f), b[1]
	if class := code >> 5; class != 0 && class != 2 && class != 4 && class != 5 || code&0x1f > 9 && code&0x1f != 15 && code != 0x5f {
		return false
	}
	if code == 0 {
		return registered && p.Length == 4 && token == 0
	}
	if len(b) < 4+token {
		return false
	}
	rest, number, path := b[4+token:], 0, 0
	for len(rest) > 0 && rest[0] != 0xff {
		delta, size := int(rest[0]>>4), int(rest[0]&0x0f)
		rest = rest[1:]
		for _, field := range [...]*int{&delta, &size} {
			switch *field {
			case 13:
				if len(rest) < 1 {
					return false
				}
				*field, rest = 13+int(rest[0]), rest[1:]
			case 14:
				if len(rest) < 2 {
					return false
				}
				*field, rest = 269+int(be.Uint16(rest)), rest[2:]
			case 15:
				return false
			}
		}
		number += delta
		if size > len(rest) {
			return registered && len(b) < p.Length
		}
		if number == 11 && size > 0 {
			if !printable(rest[:size]) {
				return false
			}
			path += size
		}
		rest = rest[size:]
	}
	return registered || path >= 3 && code >= 1 && code <= 7
}

// iperf recognises the cookie with which each connection begins (iperf 3, iperf_util.c,
// make_cookie), and the packets that connect a UDP stream (iperf_udp.c).
func iperf(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.UDP {
		return p.Length == 4 && len(b) == 4 && startsAny(b, "9876", "6789", "\x15\xcd\x5b\x07", "\xb1\x68\xde\x3a")
	}
	if len(b) < 37 || b[36] != 0 || p.Length < 37 {
		return false
	}
	for _, c := range b[:36] {
		if !(c >= 'a' && c <= 'z' || c >= '2' && c <= '7') {
			return false
		}
	}
	return true
}

// dcerpc recognises requests for a binding and its answers by version, type and length (DCE
// 1.1 RPC, section 12.6; MS-RPCE, section 2.2.2).
func dcerpc(p *Packet) bool {
	b := p.Payload
	if len(b) < 16 || b[0] != 5 || b[1] > 1 || b[2] > 19 || b[4]&0xee != 0 || b[6] != 0 || b[7] != 0 {
		return false
	}
	n := int(le.Uint16(b[8:]))
	if b[4] == 0 {
		n = int(be.Uint16(b[8:]))
	}
	return n >= 16 && n <= p.Length
}

// dcerpcUDP recognises datagrams by version, type, representation and length (DCE 1.1 RPC,
// section 12.5).
func dcerpcUDP(p *Packet) bool {
	b := p.Payload
	if len(b) < 80 || b[0] != 4 || b[1] > 10 || b[4]&0xee != 0 || b[5] != 0 || b[6] != 0 {
		return false
	}
	n := int(le.Uint16(b[74:]))
	if b[4] == 0 {
		n = int(be.Uint16(b[74:]))
	}
	return n+80 == p.Length
}

// wsDiscovery recognises SOAP messages of WS-Discovery (OASIS WS-Discovery 1.1, section 4).
func wsDiscovery(p *Packet) bool {
	b := p.Payload
	return startsAny(b, "<?xml", "<soap", "<s:Env", "<SOAP", "<Env", "<s:env") &&
		(bytes.Contains(b, []byte("/ws/2005/04/discovery")) || bytes.Contains(b, []byte("ws-dd/ns/discovery")))
}

// slp recognises messages by version, function, length and language (RFC 2608, section 8).
func slp(p *Packet) bool {
	b := p.Payload
	if len(b) < 16 || b[0] != 2 || b[1] < 1 || b[1] > 11 {
		return false
	}
	n := int(b[2])<<16 | int(be.Uint16(b[3:]))
	return n == p.Length && be.Uint16(b[12:]) == 2 && b[14] >= 'a' && b[14] <= 'z' && b[15] >= 'a' && b[15] <= 'z'
}

// natPMP recognises requests and answers by size, on its ports (RFC 6886, section 3), and
// those of its successor (RFC 6887, section 7).
func natPMP(p *Packet) bool {
	b := p.Payload
	if !p.port(5351, 5350) || len(b) < 2 {
		return false
	}
	switch {
	case b[0] == 0 && b[1] <= 2:
		return p.Length == 2 || p.Length == 12
	case b[0] == 0 && b[1] >= 128 && b[1] <= 130:
		return p.Length == 12 || p.Length == 16 || p.Length == 8
	case b[0] == 2:
		return p.Length >= 24 && p.Length%4 == 0 && b[1]&0x7f <= 3
	}
	return false
}

// netflow recognises exported flows by version and count (Cisco NetFlow version 5; RFC 3954,
// section 5.1; RFC 7011, section 3.1).
func netflow(p *Packet) bool {
	b := p.Payload
	if len(b) < 20 || b[0] != 0 {
		return false
	}
	switch b[1] {
	case 5:
		n := int(be.Uint16(b[2:]))
		return n >= 1 && n <= 30 && p.Length == 24+48*n && plausibleTime(be.Uint32(b[8:]))
	case 9:
		n := int(be.Uint16(b[2:]))
		return n >= 1 && n <= 512 && len(b) >= 24 && plausibleTime(be.Uint32(b[8:])) && int(be.Uint16(b[22:])) <= p.Length-20 &&
			(be.Uint16(b[20:]) <= 1 || be.Uint16(b[20:]) >= 256)
	case 10:
		return int(be.Uint16(b[2:])) == p.Length && plausibleTime(be.Uint32(b[4:]))
	}
	return false
}

// sflow recognises datagrams of version 5 by version, address type and number of samples
// (sFlow version 5, section 5).
func sflow(p *Packet) bool {
	b := p.Payload
	if len(b) < 36 || be.Uint32(b) != 5 {
		return false
	}
	var at int
	switch be.Uint32(b[4:]) {
	case 1:
		at = 24
	case 2:
		at = 36
	default:
		return false
	}
	return len(b) >= at+8 && be.Uint32(b[at:]) >= 1 && be.Uint32(b[at:]) <= 256 && be.Uint32(b[at+4:])&0xffff <= 4
}

// zabbix recognises the header of agents and servers (Zabbix manual, "Header").
func zabbix(p *Packet) bool {
	return starts(p.Payload, "ZBXD") && len(p.Payload) > 4 && p.Payload[4]&0xf8 == 0 && p.Payload[4] != 0
}

// openflow recognises messages by version, type and length (OpenFlow Switch Specification
// 1.5, section 7.1): the hello of both sides, and on the registered ports all.
func openflow(p *Packet) bool {
	b := p.Payload
	if len(b) < 8 || b[0] < 1 || b[0] > 6 || b[1] > 35 || be.Uint16(b[2:]) < 8 || int(be.Uint16(b[2:])) > p.Length {
		return false
	}
	return p.port(6633, 6653)
}

// dnscrypt recognises the magic with which a resolver answers (DNSCrypt protocol 2, section
// "Resolver responses").
func dnscrypt(p *Packet) bool { return starts(p.Payload, "r6fnvWj8") && p.Length >= 48 }

// dropbox recognises the announcement of a client to others in the local network.
func dropbox(p *Packet) bool {
	b := p.Payload
	return starts(b, "{\"host_int\": ") && contains(b, "\"namespaces\"") || starts(b, "{\"host_int\": ") && p.port(17500)
}

// spotify recognises the announcement of a client in the local network.
func spotify(p *Packet) bool { return starts(p.Payload, "SpotUdp0") }

// bacnet recognises the virtual link's header, and the network layer's version (ASHRAE 135,
// annex J).
func bacnet(p *Packet) bool {
	b := p.Payload
	if len(b) < 4 || b[0] != 0x81 || b[1] > 11 || int(be.Uint16(b[2:])) != p.Length {
		return false
	}
	switch b[1] {
	case 0x0a, 0x0b, 0x09: // unicast, broadcast
		return len(b) > 4 && b[4] == 1
	case 0x04: // forwarded
		return len(b) > 10 && b[10] == 1
	}
	return p.port(47808)
}

// bjnp recognises the header of Canon's discovery of printers and scanners.
func bjnp(p *Packet) bool {
	b := p.Payload
	return len(b) >= 16 && startsAny(b, "BJNP", "BJNB", "MFNP") && int64(be.Uint32(b[12:]))+16 == int64(p.Length)
}

// modbus recognises messages by protocol, length and function (Modbus messaging on TCP/IP
// 1.0b, section 3.1). On another port than 502 the answer has to repeat the number.
func (g *guess) modbus(p *Packet) bool {
	b := p.Payload
	if len(b) < 8 || b[2] != 0 || b[3] != 0 || int(be.Uint16(b[4:])) != p.Length-6 || p.Length > 260 || b[7]&0x7f > 43 || b[7]&0x7f == 0 {
		return false
	}
	return p.port(502) || g.answered(flow.ProtocolModbus, p, uint32(be.Uint16(b))|uint32(b[6])<<16|1<<24)
}

// dnp3 recognises the header of the link layer and its check sum (IEEE 1815, section 9.2).
func dnp3(p *Packet) bool {
	b := p.Payload
	if len(b) < 10 || b[0] != 0x05 || b[1] != 0x64 || b[2] < 5 {
		return false
	}
	crc := uint16(0)
	for _, c := range b[:8] {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa6bc
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc == le.Uint16(b[8:])
}

// ajp recognises requests and answers by magic, length and type (Apache JServ Protocol 1.3).
func ajp(p *Packet) bool {
	b := p.Payload
	if len(b) < 5 || int(be.Uint16(b[2:]))+4 > p.Length {
		return false
	}
	return starts(b, "\x12\x34") && (b[4] == 2 && len(b) > 6 && b[5] <= 28 || b[4] == 7 || b[4] == 8 || b[4] == 10) && be.Uint16(b[2:]) > 0 ||
		starts(b, "AB") && b[4] >= 3 && b[4] <= 9
}
