// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

// mysql recognises the greeting of a server, the answer of a client and queries (MySQL
// client/server protocol, HandshakeV10, HandshakeResponse41 and COM_QUERY).
func mysql(p *Packet) bool {
	b := p.Payload
	if len(b) < 5 {
		return false
	}
	length := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	if length+4 > p.Length || length < 1 {
		return false
	}
	switch b[3] {
	case 0:
		switch b[4] {
		case 10: // version 10, then the server's version
			end := bytes.IndexByte(b[5:], 0)
			return end > 2 && end < 64 && printable(b[5:5+end]) && b[5] >= '0' && b[5] <= '9' && bytes.IndexByte(b[5:5+end], '.') > 0 &&
				length > end+20
		case 3: // a query
			return length+4 == p.Length && length > 8 && startsAnyFold(b[5:], "SELECT ", "SHOW ", "SET ", "INSERT ", "UPDATE ", "DELETE ", "USE ",
				"CREATE ", "DROP ", "COMMIT", "BEGIN", "/*")
		case 0xff: // an error instead of the greeting
			return length+4 == p.Length && length > 5 && p.port(3306)
		}
	case 1: // number of columns of a result, and the first column; or capabilities, largest packet, character set, 23 zero bytes
		if length == 1 && has(b, 5+3, "\x02\x03def") {
			return true
		}
		return len(b) >= 36 && length+4 == p.Length && b[4]&0x08|b[5]&0x02 != 0 && zeros(b[13:32])
	}
	return false
}

// postgresql recognises start-up packets by version and length, and queries and the request
// for a password (PostgreSQL protocol 3.0, "Message formats").
func postgresql(p *Packet) bool {
	b := p.Payload
	if len(b) < 8 {
		return false
	}
	if b[0] == 0 {
		if int64(be.Uint32(b)) != int64(p.Length) {
			return false
		}
		switch be.Uint32(b[4:]) {
		case 80877103, 80877104: // SSLRequest, GSSENCRequest
			return p.Length == 8
		case 80877102: // CancelRequest
			return p.Length == 16
		case 3 << 16, 3<<16 | 2:
			return len(b) < p.Length || contains(b[8:], "user\x00")
		}
		return false
	}
	n := int64(be.Uint32(b[1:]))
	switch b[0] {
	case 'Q':
		return n+1 == int64(p.Length) && n > 5 && len(b) == p.Length && b[len(b)-1] == 0 && b[5] >= ' ' && b[5] < 0x7f
	case 'R':
		return (n == 8 || n == 12 || n == 23 || n > 12 && n < 64) && b[5] == 0 && b[6] == 0 && b[7] == 0 && len(b) > 8 && b[8] <= 12 && (n != 8 || b[8] == 0 || b[8] == 3)
	case 'E':
		return n < 4096 && startsAny(b[5:], "SERROR\x00", "SFATAL\x00")
	}
	return false
}

// redis recognises requests, and replies that no other protocol has (Redis serialization
// protocol specification).
func (g *guess) redis(p *Packet) bool {
	b := p.Payload
	switch b[0] {
	case '*': // an array of bulk strings, the first is the command
		n := digits(b[1:])
		if n == 0 || n > 7 || !has(b, 1+n, "\r\n$") {
			return false
		}
		b = b[1+n+3:]
		n = digits(b)
		return n > 0 && n <= 7 && has(b, n, "\r\n") && len(b) > n+2 && b[n+2] >= ' '
	case '-':
		return startsAny(b, "-NOAUTH ", "-ERR unknown command", "-WRONGPASS ", "-WRONGTYPE ", "-MOVED ", "-DENIED Redis ")
	case '+':
		return starts(b, "+PONG\r\n") || starts(b, "+OK\r\n") && p.port(6379)
	case 'P':
		return starts(b, "PING\r\n") && p.Length == 6
	}
	return false
}

// mongodb recognises the message header by length and operation (MongoDB wire protocol,
// "Standard message header").
func mongodb(p *Packet) bool {
	b := p.Payload
	if len(b) < 20 || int64(le.Uint32(b)) != int64(p.Length) {
		return false
	}
	switch le.Uint32(b[12:]) {
	case 1, 2001, 2002, 2004, 2005, 2006, 2007, 2010, 2011, 2012, 2013:
		return true
	}
	return false
}

// memcached recognises text commands and replies, and the binary header (memcached,
// protocol.txt; BinaryProtocolRevamped). UDP frames have eight bytes in front.
func memcached(p *Packet) bool {
	b := p.Payload
	if p.Proto == flow.UDP {
		if len(b) < 13 || be.Uint16(b[4:]) == 0 || !zeros(b[6:8]) || be.Uint16(b[2:]) >= be.Uint16(b[4:]) {
			return false
		}
		b = b[8:]
	} else if b[0] == 0x80 || b[0] == 0x81 {
		if len(b) < 24 || b[1] > 0x48 || b[5] != 0 || int64(be.Uint32(b[8:]))+24 != int64(p.Length) {
			return false
		}
		return int64(be.Uint16(b[2:]))+int64(b[4]) <= int64(be.Uint32(b[8:])) && p.port(11211)
	}
	text, ended := line(b)
	if !ended || !printable(text) {
		return false
	}
	words := countWords(text)
	switch {
	case startsAny(text, "get ", "gets ", "mg ", "touch "):
		return words >= 2 && text[len(text)-1] != '.' && !contains(text, "HTTP/") && p.port(11211)
	case startsAny(text, "set ", "add ", "replace ", "append ", "prepend ", "cas "):
		return words >= 5 && words <= 7 && text[len(text)-1] != '.' && lastNumbers(text)
	case string(text) == "stats", startsAny(text, "stats "):
		return words <= 3
	case starts(text, "VALUE "):
		return words >= 4 && words <= 5 && lastNumbers(text)
	case starts(text, "STAT "):
		return words >= 3 && starts(text, "STAT pid ") || p.port(11211)
	}
	switch string(text) {
	case "STORED", "END", "NOT_FOUND", "version", "ERROR":
		return p.port(11211)
	}
	return false
}

// lastNumbers reports whether a line's last word is a number or "noreply".
func lastNumbers(text []byte) bool {
	last := text[bytes.LastIndexByte(text, ' ')+1:]
	return digits(last) == len(last) && len(last) > 0 || string(last) == "noreply"
}

// amqp recognises the protocol header, and the server's first method (AMQP 0-9-1, sections
// 4.2.2 and 4.2.4; AMQP 1.0, section 2.2).
func amqp(p *Packet) bool {
	b := p.Payload
	if starts(b, "AMQP") {
		return len(b) >= 8 && b[4] <= 3 && b[5] <= 1
	}
	// Method frame of channel 0, connection.start.
	return len(b) >= 13 && b[0] == 1 && b[1] == 0 && b[2] == 0 && int64(be.Uint32(b[3:]))+8 == int64(p.Length) && b[7] == 0 && b[8] == 10 &&
		b[9] == 0 && b[10] >= 10 && b[10] <= 51
}

// kafka recognises requests by size, key, version and the client's name (Kafka protocol
// guide, "Request header").
func kafka(p *Packet) bool {
	b := p.Payload
	if len(b) < 15 || int64(be.Uint32(b))+4 != int64(p.Length) || be.Uint16(b[4:]) > 80 || be.Uint16(b[6:]) > 17 {
		return false
	}
	n := int(be.Uint16(b[12:]))
	return n >= 3 && n < 256 && n+14 <= p.Length && printable(b[14:min(len(b), 14+n)])
}

// tds recognises a packet before the login, or the login itself, by type, status and length
// (MS-TDS, sections 2.2.3.1 and 2.2.6).
func tds(p *Packet) bool {
	b := p.Payload
	if len(b) < 12 || int(be.Uint16(b[2:])) > p.Length || b[1] > 1 || zeros(b[2:4]) {
		return false
	}
	switch b[0] {
	case 0x12: // options: version at an offset beyond the list, length 6
		return int(be.Uint16(b[2:])) == p.Length && len(b) > 14 && b[8] == 0 && b[9] == 0 && b[11] == 0 && b[12] == 6
	case 0x10: // the login's own length, and version 7
		return len(b) >= 16 && int64(le.Uint32(b[8:])) <= int64(p.Length)-8 && le.Uint32(b[8:]) > 36 && b[15] >= 0x70 && b[15] <= 0x7a
	case 0x01, 0x03, 0x04: // queries, calls and results midstream
		return p.port(1433) && int(be.Uint16(b[2:])) == p.Length
	}
	return false
}

// tns recognises Oracle's connect, accept, refuse and resend packets by length and type.
func tns(p *Packet) bool {
	b := p.Payload
	if len(b) < 12 || int(be.Uint16(b)) != p.Length || !zeros(b[2:4]) || !zeros(b[6:8]) {
		return false
	}
	switch b[4] {
	case 1:
		return p.Length >= 58 && (contains(b, "(CONNECT_DATA=") || contains(b, "(DESCRIPTION="))
	case 2, 4, 5, 11:
		return p.port(1521)
	}
	return false
}

// cassandra recognises the first frames of both sides (CQL native protocol v4, sections 2
// and 4.1).
func cassandra(p *Packet) bool {
	b := p.Payload
	if len(b) < 9 || b[0]&0x7f < 3 || b[0]&0x7f > 5 || int64(be.Uint32(b[5:]))+9 != int64(p.Length) {
		return false
	}
	switch b[4] {
	case 1: // STARTUP
		return contains(b, "CQL_VERSION")
	case 5: // OPTIONS
		return p.Length == 9 && b[0] < 0x80
	case 6: // SUPPORTED
		return contains(b, "CQL_VERSION") || contains(b, "COMPRESSION")
	}
	return false
}

// nats recognises the server's and the client's first line (NATS client protocol).
func nats(p *Packet) bool {
	return startsAny(p.Payload, "INFO {\"", "CONNECT {\"") && (contains(p.Payload, "\"server_id\"") || contains(p.Payload, "\"verbose\""))
}

// stomp recognises the first frames (STOMP 1.2, sections "Connecting" and "Standard headers").
func stomp(p *Packet) bool {
	b := p.Payload
	return startsAny(b, "CONNECT\n", "CONNECT\r\n", "STOMP\n", "CONNECTED\n", "CONNECTED\r\n") &&
		(contains(b, "accept-version:") || contains(b, "login:") || contains(b, "session:") || contains(b, "version:"))
}
