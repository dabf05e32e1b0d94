// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/dpclass/dpclass/flow"

// signature says what decided a flow's protocol in this package, without guess.
type signature uint8

const (
	sigNone signature = iota
	sigClientHello
	sigRecords
	sigDNSOverTLS
	sigDNSOverTLSPort
	sigQUIC
	sigInitial
	sigGoogleQUIC
	sigDTLS
	sigDTLSHello
	sigRequest
	sigResponse
	sigHTTP2
	sigMMTLSRequest
)

var signatures = [...]string{
	sigNone:           "",
	sigClientHello:    "TLS client hello (RFC 8446, section 4.1.2)",
	sigRecords:        "TLS records (RFC 8446, section 5.1)",
	sigDNSOverTLS:     `TLS client hello that offers the protocol "dot" (RFC 7858, section 3.1)`,
	sigDNSOverTLSPort: "TLS on port 853 (RFC 7858, section 3.1)",
	sigQUIC:           "QUIC long header (RFC 9000, section 17.2)",
	sigInitial:        "QUIC Initial packet of a client, decrypted (RFC 9001, section 5.2)",
	sigGoogleQUIC:     "Google QUIC public header (draft-hamilton-early-deployment-quic-00, section 6.1)",
	sigDTLS:           "DTLS records (RFC 6347, section 4.1)",
	sigDTLSHello:      "DTLS client hello (RFC 6347, section 4.2)",
	sigRequest:        "HTTP/1 request (RFC 9112, section 3)",
	sigResponse:       "HTTP/1 response (RFC 9112, section 4)",
	sigHTTP2:          "HTTP/2 preface (RFC 9113, section 3.4)",
	sigMMTLSRequest:   "HTTP/1 request that carries MMTLS records (Citizen Lab, Should we chat, too?, 2024)",
}

// Signature says in a few words what decided the protocol, and where that is specified:
// "TLS client hello (RFC 8446, section 4.1.2)". It is "" for a flow without a protocol.
func (f *Flow) Signature() string {
	p := f.decided()
	if p == flow.ProtocolUnknown {
		return ""
	}
	text := signatures[f.signature]
	if p != f.protocol {
		text = p.String() + " signature (" + p.Source() + ")"
		if f.source == flow.NameTLS && f.protocol == flow.ProtocolUnknown {
			text += ", then a TLS client hello"
		}
	}
	return text
}
