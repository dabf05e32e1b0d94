// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

const connectionless = "\xff\xff\xff\xff"

// steam recognises the datagrams and connections of the Steam client to its servers and the
// discovery of other clients in the local network.
func steam(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.TCP {
		return len(b) >= 8 && has(b, 4, "VT01") && int64(le.Uint32(b)) <= 1<<20
	}
	return len(b) >= 36 && starts(b, "VS01") && int(le.Uint16(b[4:]))+36 == p.Length || starts(b, connectionless+"\x21\x4c\x5f\xa0")
}

// sourceEngine recognises queries and their answers (Valve developer community, "Server
// queries").
func sourceEngine(p *Packet) bool {
	b := p.Payload
	if len(b) < 5 || !starts(b, connectionless) {
		return false
	}
	switch b[4] {
	case 'T':
		return has(b, 5, "Source Engine Query\x00")
	case 'U', 'V', 'A': // players, rules, challenge
		return p.Length == 9
	case 'W', 'i':
		return p.Length == 5 && b[4] == 'i' || p.Length == 9
	case 'I', 'm':
		end := 6
		for end < len(b) && b[end] >= ' ' {
			end++
		}
		return end > 6 && end < len(b) && b[end] == 0 && b[5] < 64
	case 'D', 'E':
		return p.Length > 8 && p.port(27015, 27016, 27017)
	}
	return false
}

// quake recognises the commands and answers outside of a connection (Quake III Arena,
// qcommon/net_chan.c and server/sv_main.c).
func quake(p *Packet) bool {
	b := p.Payload
	if !starts(b, connectionless) {
		return false
	}
	return startsAny(b[4:], "getstatus", "getinfo", "getchallenge", "getservers", "statusResponse\n", "infoResponse\n", "challengeResponse ",
		"connect \"", "connectResponse", "getKeyAuthorize", "keyAuthorize", "getserversResponse", "heartbeat ", "rcon ", "disconnect", "print\n",
		"ipAuthorize", "getIpAuthorize")
}

// minecraft recognises the handshake: length, packet 0, version, the server's name and port,
// the next state (Java edition protocol, "handshake"), and the older ping of the server list.
func minecraft(p *Packet) bool {
	b := p.Payload
	if starts(b, "\xfe\x01") {
		return p.Length == 2 || has(b, 2, "\xfa\x00\x0b\x00M\x00C\x00|\x00P")
	}
	length, n := varint(b)
	if n == 0 || length < 6 || length > 300 || length+n > p.Length || length+n > len(b) || b[n] != 0 {
		return false
	}
	b = b[n+1 : n+length]
	version, n := varint(b)
	if n == 0 || version > 0x7fffffff {
		return false
	}
	b = b[n:]
	size, n := varint(b)
	if n == 0 || size == 0 || size > 255 || len(b) != n+size+3 {
		return false
	}
	name := b[n : n+size]
	for i, c := range name { // mods append more after a zero byte
		if c == 0 && i > 0 {
			name = name[:i]
			break
		}
	}
	state := b[len(b)-1]
	return printable(name) && state >= 1 && state <= 3
}

// varint reads a number of up to five groups of seven bits. n is its length, 0 if it does
// not end.
func varint(b []byte) (value, n int) {
	for i := range min(len(b), 5) {
		value |= int(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return value, i + 1
		}
	}
	return 0, 0
}

// raknet recognises the magic of messages outside of a connection (RakNet,
// OFFLINE_MESSAGE_DATA_ID).
func raknet(p *Packet) bool {
	const magic = "\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78"
	return bytes.Contains(p.Payload[:min(len(p.Payload), 64)], []byte(magic))
}
