// SPDX-License-Identifier: Apache-2.0

package wire

// Extensions of a client hello (IANA, TLS ExtensionType Values).
const (
	extServerName        = 0      // RFC 6066, section 3
	extALPN              = 16     // RFC 7301, section 3.1
	extSignatures        = 13     // RFC 8446, section 4.2.3
	extSupportedVersions = 43     // RFC 8446, section 4.2.1
	extEncryptedHello    = 0xfe0d // RFC 9849, section 5
	extEncryptedName     = 0xffce // encrypted_server_name of draft-ietf-tls-esni-06 and older
)

// maxList is the number of ciphers, extensions or signature algorithms of a hello that
// are kept for its fingerprint. IANA lists about 370 ciphers. A hello with more gets no
// fingerprint.
const maxList = 384

// list is a bounded list of 16-bit values.
type list struct {
	values [maxList]uint16
	n      int
	full   bool
}

func (l *list) add(v int) {
	if grease(v) {
		return
	}
	if l.n == len(l.values) {
		l.full = true
		return
	}
	l.values[l.n] = uint16(v)
	l.n++
}

// addAll adds the 16-bit values of b.
func (l *list) addAll(b []byte) {
	for ; len(b) >= 2; b = b[2:] {
		l.add(int(b[0])<<8 | int(b[1]))
	}
}

// grease reports whether a value is reserved to keep servers tolerant: 0x0a0a, 0x1a1a and
// so on (RFC 8701, section 2).
func grease(v int) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// hello is what a client hello says. Its slices point into the message.
type hello struct {
	complete    bool   // read to its end: fingerprint() is valid
	version     int    // the highest that the client offers
	hasName     bool   // it has the server_name extension
	name        []byte // host_name in it
	alpn        []byte // first protocol, GREASE included; nil without the extension
	alpnShown   []byte // first protocol without GREASE
	hasALPN     bool
	hidden      bool // the real name is encrypted
	encrypted   bool // it has an encrypted_client_hello or encrypted_server_name
	ciphers     list
	extensions  list
	signatures  list
	versionsExt bool
}

// helloKind says how a hello was transported: the first character of its JA4.
type helloKind byte

const (
	helloTLS  helloKind = 't'
	helloQUIC helloKind = 'q'
	helloDTLS helloKind = 'd'
)

// parse reads the body of a client hello (RFC 8446, section 4.1.2), without the header of
// the handshake message. The message has size bytes; the body may be cut, or invalid. Then
// what comes before is used.
func (h *hello) parse(body []byte, size int, kind helloKind) {
	r := reader{b: body}
	h.version = r.uint(2)
	r.bytes(32) // random
	r.vector(1) // session id
	if kind == helloDTLS {
		r.vector(1) // cookie (RFC 6347, section 4.2.1)
	}
	ciphers := r.vector(2)
	r.vector(1) // compression methods
	if r.bad {
		return
	}
	h.ciphers.addAll(ciphers)
	rest := size - (len(body) - len(r.b)) // without extensions it is 0: allowed until TLS 1.2
	whole := rest == len(r.b)
	if rest > 0 {
		whole = r.uint(2) == rest-2 && whole
	}
	for len(r.b) > 0 {
		ext := r.uint(2)
		data := r.vector(2)
		if r.bad {
			break
		}
		h.extensions.add(ext)
		h.extension(ext, data)
	}
	h.finish(whole && !r.bad)
}

func (h *hello) extension(ext int, data []byte) {
	r := reader{b: data}
	switch ext {
	case extServerName:
		h.hasName = true
		names := reader{b: r.vector(2)}
		for len(names.b) > 0 && !names.bad && h.name == nil {
			kind := names.uint(1)
			if name := names.vector(2); kind == 0 && !names.bad {
				h.name = name
			}
		}
	case extALPN:
		protocols := reader{b: r.vector(2)}
		for len(protocols.b) > 0 && h.alpnShown == nil {
			protocol := protocols.vector(1)
			if protocols.bad {
				return
			}
			if !h.hasALPN {
				h.hasALPN, h.alpn = true, protocol
			}
			if len(protocol) != 2 || !grease(int(protocol[0])<<8|int(protocol[1])) {
				h.alpnShown = protocol
			}
		}
	case extSignatures:
		h.signatures.addAll(r.vector(2))
	case extSupportedVersions:
		versions := r.vector(1)
		for ; len(versions) >= 2; versions = versions[2:] {
			v := int(versions[0])<<8 | int(versions[1])
			if !grease(v) && (!h.versionsExt || newer(v, h.version)) {
				h.version, h.versionsExt = v, true
			}
		}
	case extEncryptedHello:
		const outer = 0 // the other type, inner, is never sent unencrypted
		kind := r.uint(1)
		h.encrypted = h.encrypted || kind == outer && !r.bad
	case extEncryptedName:
		h.encrypted = true
	}
}

// newer compares two versions of TLS or DTLS. DTLS counts down: 1.0 is feff, 1.2 is fefd.
func newer(a, b int) bool {
	if a>>8 == 0xfe && b>>8 == 0xfe {
		return a < b
	}
	return a > b
}

func (h *hello) finish(complete bool) {
	h.complete = complete
	// Without the end of a cut hello, an extension that would show the name may be missing.
	h.hidden = h.encrypted && (publicName(h.name) || complete && !h.hasName)
}
