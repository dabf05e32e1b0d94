// SPDX-License-Identifier: Apache-2.0

package wire

// DTLS records and handshake messages (RFC 6347, section 4; the same in RFC 9147, section
// 4, for everything that is not encrypted).
const (
	dtlsRecordHeader    = 13
	dtlsHandshakeHeader = 12
)

// isDTLS reports whether a datagram of onWire bytes begins with a DTLS record.
func isDTLS(b []byte, onWire int) bool {
	if len(b) < dtlsRecordHeader || b[0] < recordChangeCipher || b[0] > recordData+3 ||
		b[1] != 0xfe || b[2] < 0xfc {
		return false
	}
	length := int(b[11])<<8 | int(b[12])
	epoch := int(b[3])<<8 | int(b[4])
	if length == 0 || length > onWire-dtlsRecordHeader {
		return false
	}
	if b[0] != recordHandshake || epoch > 0 {
		// Handshakes again and again are possible, but nobody counts far.
		return epoch < 256
	}
	return length >= dtlsHandshakeHeader
}

// dtlsHello returns a fragment of the client hello in a DTLS record: its body, the
// fragment's offset in it, and the size of the whole body.
func dtlsHello(b []byte) (fragment []byte, offset, size int, ok bool) {
	length := int(b[11])<<8 | int(b[12])
	r := reader{b: b[dtlsRecordHeader:]}
	r.b = r.b[:min(len(r.b), length)]
	if b[0] != recordHandshake || r.uint(1) != messageClientHello {
		return nil, 0, 0, false
	}
	size = r.uint(3)
	r.uint(2) // number of the message
	offset = r.uint(3)
	n := r.uint(3)
	if r.bad || n > size || offset > size-n {
		return nil, 0, 0, false
	}
	return r.b[:min(n, len(r.b))], offset, size, true
}
