// SPDX-License-Identifier: Apache-2.0

package flow

// Evidence is what the first payload packets of a flow say by themselves, without a
// network.
type Evidence struct {
	Protocol   Protocol
	Name       string // server name in lower case; "" if none is known, [HiddenName] if it is encrypted
	NameSource NameSource
	ALPN       string // first protocol that a TLS or QUIC client offers (RFC 7301), such as "h2"
	JA4        string // JA4 fingerprint of a TLS or QUIC client; "" for other flows
}

// HiddenName replaces the public name of a hello whose real server name is encrypted
// (Encrypted Client Hello, RFC 9849). It decides nothing.
const HiddenName = "(hidden)"

// MaxName is the longest server name, in bytes (RFC 1035, section 2.3.4).
const MaxName = 253

// NameSource says where a server name comes from.
type NameSource uint8

// The sources of a server name. The first three are the flow's own; the others are
// conclusions, and never replace a name of the flow's own.
const (
	NameNone   NameSource = iota
	NameTLS               // server_name of a TLS hello
	NameQUIC              // server_name of the hello in QUIC Initial packets
	NameHTTP              // Host of a request
	NameDNS               // a DNS answer gave the server's address for this name
	NameServer            // an earlier flow to the same server, port and transport had this name
)

var nameSources = [...]string{"", "tls", "quic", "http", "dns", "server"}

// ParseNameSource returns the source with the given name, [NameNone] for an unknown one.
func ParseNameSource(name string) NameSource {
	for n, known := range nameSources {
		if name == known {
			return NameSource(n)
		}
	}
	return NameNone
}

// String returns "", "tls", "quic", "http", "dns" or "server".
func (s NameSource) String() string {
	if int(s) < len(nameSources) {
		return nameSources[s]
	}
	return ""
}
