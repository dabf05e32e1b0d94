// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"

	"github.com/dpclass/dpclass/flow"
)

// maxCommand is the longest line that may be a command for TLS.
const maxCommand = 64

// upgrade returns the protocol whose client asks for TLS in this packet, so that a hello
// follows in the middle of the connection.
func upgrade(b []byte) flow.Protocol {
	// PostgreSQL, section "SSL Session Encryption": SSLRequest.
	if len(b) == 8 && string(b) == "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
		return flow.ProtocolPostgreSQL
	}
	if len(b) > 0 && b[0] == '<' { // RFC 6120, section 5.4.2.1
		if bytes.HasPrefix(b, []byte("<starttls")) && bytes.Contains(b, []byte("urn:ietf:params:xml:ns:xmpp-tls")) {
			return flow.ProtocolXMPP
		}
		return flow.ProtocolUnknown
	}
	// The last of several commands counts (RFC 2920 allows STARTTLS as the last one).
	if n := len(b); n < 2 || b[n-1] != '\n' {
		return flow.ProtocolUnknown
	}
	line := bytes.TrimSuffix(b[:len(b)-1], []byte("\r"))
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	if len(line) > maxCommand {
		return flow.ProtocolUnknown
	}
	switch {
	case equalFold(line, "starttls"): // RFC 3207, section 4
		return flow.ProtocolSMTP
	case equalFold(line, "stls"): // RFC 2595, section 4
		return flow.ProtocolPOP3
	case equalFold(line, "auth tls"), equalFold(line, "auth tls-c"), equalFold(line, "auth ssl"): // RFC 4217, section 4
		return flow.ProtocolFTP
	}
	tag, command, _ := bytes.Cut(line, []byte(" "))
	// A server of SMTP says "250 STARTTLS".
	if equalFold(command, "starttls") && string(tag) != "250" { // RFC 9051, section 6.2.1
		return flow.ProtocolIMAP
	}
	return flow.ProtocolUnknown
}

// upgrades reports whether a connection of this protocol may go on with a TLS hello.
func upgrades(p flow.Protocol) bool {
	switch p {
	case flow.ProtocolSMTP, flow.ProtocolIMAP, flow.ProtocolPOP3, flow.ProtocolFTP, flow.ProtocolXMPP,
		flow.ProtocolPostgreSQL, flow.ProtocolMySQL, flow.ProtocolLDAP, flow.ProtocolRDP, flow.ProtocolSOCKS:
		return true
	}
	return false
}
