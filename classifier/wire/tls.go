// SPDX-License-Identifier: Apache-2.0

package wire

// TLS records (RFC 8446, section 5.1) and handshake messages (section 4).
const (
	recordHeader    = 5
	handshakeHeader = 4

	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
	recordData         = 23

	messageClientHello = 1
	messageServerHello = 2

	// maxRecord is the longest record: 2^14 bytes and, until TLS 1.2, up to 2,048 for
	// compression and encryption (RFC 5246, section 6.2.3).
	maxRecord = 1<<14 + 2048
)

// match says whether bytes are the beginning of something.
type match uint8

const (
	no    match = iota
	maybe       // as far as they go, yes
	yes
)

// record reads the header of a TLS record. length is that of the record's content.
func record(b []byte) (kind, length int, m match) {
	if len(b) == 0 || b[0] < recordChangeCipher || b[0] > recordData {
		return 0, 0, no
	}
	if len(b) > 1 && b[1] != 3 || len(b) > 2 && b[2] > 4 {
		return 0, 0, no
	}
	if len(b) < recordHeader {
		return 0, 0, maybe
	}
	kind, length = int(b[0]), int(b[3])<<8|int(b[4])
	if length == 0 || length > maxRecord {
		return 0, 0, no
	}
	return kind, length, yes
}

// isClientHello says whether a stream begins with a TLS client hello.
func isClientHello(b []byte) match {
	if len(b) > 0 && b[0] != recordHandshake {
		return no
	}
	_, length, m := record(b)
	switch {
	case m != yes:
		return m
	case len(b) == recordHeader:
		return maybe
	case b[recordHeader] != messageClientHello:
		return no
	case len(b) > recordHeader+1 && length > 1 && b[recordHeader+1] != 0: // 64 kB or more
		return no
	}
	return yes
}

// isRecords reports whether a stream begins with TLS records of any kind: what a server
// sends, or a connection whose beginning was not seen.
func isRecords(b []byte) bool {
	for seen := 0; ; seen++ {
		kind, length, m := record(b)
		if m != yes {
			// A later record may be cut, but it must not be something else.
			return seen > 0 && (m == maybe || len(b) == 0)
		}
		switch {
		case kind == recordChangeCipher && length != 1,
			kind == recordAlert && length != 2 && length < 16,
			kind == recordData && length < 17: // encrypted: a byte and its authentication tag
			return false
		}
		if length > len(b)-recordHeader {
			return true
		}
		b = b[recordHeader+length:]
	}
}

// clientHello returns the client hello at the beginning of a stream of records, without
// the header of the handshake message, as far as it is there, and its whole size. scratch
// is needed if the message has several records; nil: only the first is read. broken: the
// rest cannot come.
func clientHello(b []byte, scratch *window) (body []byte, size int, broken bool) {
	message := b[recordHeader:]
	_, length, _ := record(b)
	if len(message) > length {
		message = message[:length]
		if scratch != nil {
			message, broken = joinRecords(b, scratch.data[:0])
		}
	}
	if len(message) < handshakeHeader {
		return nil, handshakeHeader, broken
	}
	size = int(message[1])<<16 | int(message[2])<<8 | int(message[3])
	body = message[handshakeHeader:min(len(message), handshakeHeader+size)]
	return body, size, broken && len(body) < size
}

// joinRecords appends the content of handshake records to message, as far as they are
// there and up to its capacity. broken: something else follows.
func joinRecords(b, message []byte) (joined []byte, broken bool) {
	for len(b) > 0 {
		kind, length, m := record(b)
		if m != yes {
			return message, m == no
		}
		if kind != recordHandshake {
			return message, true
		}
		part := b[recordHeader:min(len(b), recordHeader+length)]
		message = append(message, part[:min(len(part), cap(message)-len(message))]...)
		b = b[recordHeader+len(part):]
	}
	return message, false
}
