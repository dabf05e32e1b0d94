// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/dpclass/dpclass/flow"

// greeting recognises the text of SMTP and FTP servers and clients. Both begin with a line
// "220 "; without a telling word in it, the client's answer decides.
func (g *guess) greeting(p *Packet) flow.Protocol {
	b := p.Payload
	switch b[0] {
	case '2', '3', '4', '5':
		return g.reply(p)
	}
	_, greeted := g.recall(flow.ProtocolSMTP, !p.FromA, 220)
	text, ended := line(b)
	if !ended && p.Length == len(b) {
		return flow.ProtocolUnknown
	}
	switch {
	// RFC 5321, section 4.1.1; LHLO: RFC 2033, section 4.1.
	case startsAnyFold(b, "EHLO ", "HELO ", "LHLO "), startsAnyFold(b, "MAIL FROM:<", "RCPT TO:<"):
		return flow.ProtocolSMTP
	case startsFold(b, "USER ") && greeted, startsAnyFold(b, "AUTH TLS\r\n", "AUTH SSL\r\n") && (greeted || p.port(21)):
		return flow.ProtocolFTP
	case startsFold(b, "USER ") && countWords(text) == 2:
		g.keep(flow.ProtocolFTP, p.FromA, 331, 0)
		if p.port(21) {
			return flow.ProtocolFTP
		}
		if _, ok := g.recall(flow.ProtocolPOP3, !p.FromA, 0); ok || p.port(110) {
			return flow.ProtocolPOP3
		}
	// RFC 959, section 4.1.2; RFC 2428. The command words alone are too common on other ports.
	case p.port(21) && startsAnyFold(b, "PASV\r\n", "EPSV", "PORT ", "EPRT ", "TYPE ", "RETR ", "STOR ", "LIST", "NLST", "CWD ", "PWD\r\n",
		"SYST\r\n", "FEAT\r\n", "PASS ", "SIZE ", "QUIT\r\n", "MDTM ", "OPTS ", "NOOP\r\n", "DELE ", "MKD ", "PBSZ ", "CLNT ", "XPWD", "REST "):
		return flow.ProtocolFTP
	case p.port(25, 587) && startsAnyFold(b, "MAIL ", "RCPT ", "DATA\r\n", "QUIT\r\n", "RSET\r\n", "AUTH ", "NOOP\r\n"):
		return flow.ProtocolSMTP
	}
	return flow.ProtocolUnknown
}

// reply recognises the reply lines of SMTP (RFC 5321, section 4.2) and FTP (RFC 959,
// section 4.2).
func (g *guess) reply(p *Packet) flow.Protocol {
	b := p.Payload
	if len(b) < 4 || digits(b[:3]) != 3 || (b[3] != ' ' && b[3] != '-') {
		return flow.ProtocolUnknown
	}
	text, _ := line(b)
	if !printable(text[:4]) {
		return flow.ProtocolUnknown
	}
	code := string(text[:3])
	mailPort, filePort := p.port(25, 465, 587, 2525), p.port(21)
	switch code {
	case "220", "120", "421", "554":
		switch {
		case containsFold(text, "SMTP"), containsFold(text, "LMTP"):
			return flow.ProtocolSMTP
		case containsFold(text, "FTP"), containsFold(text, "FILEZILLA"):
			return flow.ProtocolFTP
		case mailPort:
			return flow.ProtocolSMTP
		case filePort:
			return flow.ProtocolFTP
		}
		if code == "220" {
			g.keep(flow.ProtocolSMTP, p.FromA, 220, 0)
		}
	case "250":
		if startsAnyFold(text[4:], "PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES") ||
			(contains(b, "\r\n250") && (contains(b, "PIPELINING") || contains(b, "8BITMIME") || contains(b, "250-SIZE") || contains(b, "250 SIZE"))) ||
			mailPort {
			return flow.ProtocolSMTP
		}
	case "331", "227", "229", "230", "150", "226", "215", "211", "234":
		if _, ok := g.recall(flow.ProtocolFTP, !p.FromA, 331); (ok && code == "331") || filePort ||
			startsAny(text, "227 Entering Passive Mode (", "229 Entering Extended Passive Mode (|||") {
			return flow.ProtocolFTP
		}
	case "354", "334", "235":
		if mailPort {
			return flow.ProtocolSMTP
		}
	}
	return flow.ProtocolUnknown
}

// countWords returns the number of words that spaces separate.
func countWords(b []byte) int {
	n, inside := 0, false
	for _, c := range b {
		if c == ' ' {
			inside = false
		} else if !inside {
			n, inside = n+1, true
		}
	}
	return n
}

// imap recognises the greeting of a server and tagged commands (RFC 9051, sections 7.1 and
// 6).
func imap(p *Packet) bool {
	b := p.Payload
	if b[0] == '*' {
		return startsAnyFold(b, "* OK ", "* PREAUTH ", "* CAPABILITY IMAP", "* BYE ") && (containsFold(b, "IMAP") || p.port(143, 993)) ||
			startsFold(b, "* OK [CAPABILITY ")
	}
	tag := 0
	for tag < len(b) && tag < 12 && (b[tag] >= 'a' && b[tag] <= 'z' || b[tag] >= 'A' && b[tag] <= 'Z' || b[tag] >= '0' && b[tag] <= '9' || b[tag] == '.') {
		tag++
	}
	if tag == 0 || !has(b, tag, " ") {
		return false
	}
	// The tag must contain a digit: words of other protocols do not.
	digit := false
	for _, c := range b[:tag] {
		digit = digit || c >= '0' && c <= '9'
	}
	rest := b[tag+1:]
	return digit && (startsAnyFold(rest, "CAPABILITY\r\n", "STARTTLS\r\n", "LOGIN ", "AUTHENTICATE ", "NAMESPACE\r\n", "SELECT ", "EXAMINE ",
		"UID FETCH ", "UID SEARCH ", "ID (", "ID NIL", "LSUB \"", "LIST \"", "IDLE\r\n") ||
		startsAnyFold(rest, "OK ", "NO ", "BAD ", "NOOP\r\n", "LOGOUT\r\n") && p.port(143, 993))
}

// pop3 recognises the greeting of a server and the commands that no other protocol has
// (RFC 1939, sections 4 and 7; RFC 2449, section 5; RFC 2595, section 4).
func (g *guess) pop3(p *Packet) bool {
	b := p.Payload
	if b[0] == '+' {
		text, ended := line(b)
		if !starts(text, "+OK") || !ended && p.Length == len(b) || (len(text) > 3 && text[3] != ' ') {
			return false
		}
		g.keep(flow.ProtocolPOP3, p.FromA, 0, 0)
		_, user := g.recall(flow.ProtocolFTP, !p.FromA, 331)
		return p.port(110, 995) || user || containsFold(text, "POP3") || containsFold(text, "POP ") ||
			(len(text) > 8 && text[len(text)-1] == '>' && contains(text, "@"))
	}
	return startsAnyFold(b, "STLS\r\n", "APOP ", "UIDL\r\n") ||
		startsAnyFold(b, "CAPA\r\n", "AUTH\r\n", "STAT\r\n", "LIST\r\n", "QUIT\r\n", "PASS ") && p.port(110)
}
