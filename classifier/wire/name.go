// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/dpclass/dpclass/flow"

// maxLabel is the longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const maxLabel = 63

// hostName returns a server name in lower case, without the dot at its end. It returns ""
// for everything that is not a host name: IP addresses, empty or long labels, and any
// byte but letters, digits, "-", "_" and ".". Names come from strangers and end up in
// terminals and logs.
func hostName(name []byte) string {
	if n := len(name); n > 1 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) == 0 || len(name) > flow.MaxName {
		return ""
	}
	var lower [flow.MaxName]byte
	label, digits := 0, true // of the current label: its length, and whether it has digits only
	for i, c := range name {
		switch {
		case c == '.':
			if label == 0 {
				return ""
			}
			label, digits = -1, true
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
			digits = false
		case 'a' <= c && c <= 'z' || c == '-' || c == '_':
			digits = false
		case '0' <= c && c <= '9':
		default:
			return ""
		}
		if label++; label > maxLabel {
			return ""
		}
		lower[i] = c
	}
	// The last label of a name is never a number, so that addresses can be told from names
	// (RFC 1123, section 2.1).
	if label == 0 || digits {
		return ""
	}
	return string(lower[:len(name)])
}

// publicNames are outer names of providers that offer Encrypted Client Hello: every site
// of such a provider shows this name. A client that has no key for a site puts random
// bytes into the same extension and shows the real name (RFC 9849, section 6.2), and
// nobody but the server can tell the two apart. So the name has to.
var publicNames = [...]string{
	"cloudflare-ech.com", // Cloudflare
	"public.tls-ech.dev", // test server of the BoringSSL developers
	"cover.defo.ie",      // test server of the DEfO project (OpenSSL)
}

// publicName reports whether a name is the outer name of a provider.
func publicName(name []byte) bool {
	for _, public := range publicNames {
		if equalFold(name, public) {
			return true
		}
	}
	return false
}

// equalFold reports whether b is the text lower, which is in lower case, in any case.
func equalFold(b []byte, lower string) bool {
	return len(b) == len(lower) && hasPrefixFold(b, lower)
}

// hasPrefixFold reports whether b begins with the text lower, which is in lower case, in
// any case.
func hasPrefixFold(b []byte, lower string) bool {
	if len(b) < len(lower) {
		return false
	}
	for i := range len(lower) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// commonALPN are protocols that need no memory of their own.
var commonALPN = [...]string{"h2", "http/1.1", "h3", "dot", "http/1.0", "h3-29", "imap", "xmpp-client", "stun.turn"}

// alpnName returns a protocol of ALPN, "" if it has unprintable bytes: the type allows
// any bytes (RFC 7301, section 3.1).
func alpnName(protocol []byte) string {
	for _, common := range commonALPN {
		if string(protocol) == common {
			return common
		}
	}
	for _, c := range protocol {
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return string(protocol)
}
