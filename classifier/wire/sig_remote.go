// SPDX-License-Identifier: Apache-2.0

package wire

// ssh recognises the identification of either side (RFC 4253, section 4.2), and its first
// binary packet, SSH_MSG_KEXINIT, in flows whose beginning was not seen (section 7.1).
func ssh(p *Packet) bool {
	b := p.Payload
	switch b[0] {
	case 'S':
		return startsAny(b, "SSH-2.0-", "SSH-1.")
	case 0:
		if len(b) < 40 || b[1] != 0 || b[5] != 20 || b[4] < 4 {
			return false
		}
		// Packet length, padding length, message, cookie, then the first list of names.
		length, names := int(be.Uint32(b)), int(be.Uint32(b[22:]))
		return length > 40 && length <= 35000 && names >= 8 && names < length && (length+4)%8 == 0 && printable(b[26:min(len(b), 26+names)])
	}
	return false
}

// rdp recognises the connection request and confirmation with a routing cookie or a
// negotiation (MS-RDPBCGR, sections 2.2.1.1 and 2.2.1.2). Other protocols use X.224 as well,
// but with parameters of their own.
func rdp(p *Packet) bool {
	b := p.Payload
	if len(b) < 11 || b[0] != 3 || b[1] != 0 || int(be.Uint16(b[2:])) > p.Length || be.Uint16(b[2:]) < 11 ||
		int(b[4]) != int(be.Uint16(b[2:]))-5 {
		return false
	}
	end := min(len(b), int(be.Uint16(b[2:])))
	rest := b[11:max(end, 11)]
	switch b[5] {
	case 0xe0:
		return starts(rest, "Cookie: ") || has(rest, 0, "\x01\x00\x08\x00") || starts(rest, "mstshash") ||
			(int(be.Uint16(b[2:])) == 11 && p.port(3389))
	case 0xd0:
		return len(rest) >= 4 && (rest[0] == 2 || rest[0] == 3) && rest[2] == 8 && rest[3] == 0 ||
			(int(be.Uint16(b[2:])) == 11 && p.port(3389))
	}
	return false
}

// rdpUDP recognises the SYN datagram: no acknowledgement, the flags and both MTUs
// (MS-RDPEUDP, sections 2.2.2.1 and 3.1.5.1.1).
func rdpUDP(p *Packet) bool {
	b := p.Payload
	if len(b) < 16 || !starts(b, "\xff\xff\xff\xff") || be.Uint16(b[6:])&1 == 0 {
		return false
	}
	up, down := be.Uint16(b[12:]), be.Uint16(b[14:])
	return p.Length >= 1132 && up >= 1132 && up <= 1232 && down >= 1132 && down <= 1232
}

// vnc recognises the version of either side (RFC 6143, section 7.1.1).
func vnc(p *Packet) bool {
	b := p.Payload
	return len(b) >= 12 && starts(b, "RFB 00") && b[7] == '.' && digits(b[8:11]) == 3 && b[11] == '\n'
}

// telnet recognises option negotiation (RFC 854; RFC 855). On another port than 23 the
// packet has to consist of at least two requests.
func telnet(p *Packet) bool {
	b := p.Payload
	n := 0
	for len(b) >= 3 && b[0] == 0xff {
		switch {
		case b[1] >= 0xfb && b[1] <= 0xfe && (b[2] < 64 || b[2] == 0xff):
			b = b[3:]
		case b[1] == 0xfa && b[2] < 64: // subnegotiation, up to IAC SE
			end := 3
			for end+1 < len(b) && !(b[end] == 0xff && b[end+1] == 0xf0) {
				end++
			}
			b = b[min(end+2, len(b)):]
		default:
			return false
		}
		n++
	}
	return n >= 2 && (len(b) == 0 || b[0] != 0xff) || n == 1 && p.port(23)
}

// xdmcp recognises packets by version, opcode and length (X Display Manager Control
// Protocol 1.1, section 4).
func xdmcp(p *Packet) bool {
	b := p.Payload
	return len(b) >= 6 && b[0] == 0 && b[1] == 1 && b[2] == 0 && b[3] >= 1 && b[3] <= 15 &&
		int(be.Uint16(b[4:]))+6 == p.Length && p.port(177)
}

// rlogin recognises the client's first packet: a zero byte, two user names, terminal and
// speed (RFC 1282, section 2).
func rlogin(p *Packet) bool {
	b := p.Payload
	if len(b) < 6 || len(b) > 128 || b[0] != 0 || b[len(b)-1] != 0 || p.Length != len(b) {
		return false
	}
	fields, slash := 0, false
	for _, c := range b[1:] {
		switch {
		case c == 0:
			fields++
		case c < ' ' || c > '~':
			return false
		case c == '/' && fields == 2:
			slash = true
		case fields == 2 && slash && (c < '0' || c > '9'):
			return false
		}
	}
	return fields == 3 && slash && b[1] != 0
}
