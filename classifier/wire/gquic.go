// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
)

// Google's QUIC before the IETF's, versions Q024 to Q046: its client hello is not
// encrypted. Captures of before 2019 have it.
const (
	gquicHeader = 13 // flags, 8 bytes of connection id, version
	gquicSearch = 64 // the hello begins at most this many bytes after the header
	gquicTags   = 64 // most tags of a hello
)

// isGoogleQUIC reports whether a datagram begins with a client's public header of Google's
// QUIC (draft-hamilton-early-deployment-quic-00, section 6.1), or with the long header of
// its versions Q044 to Q046, whose lengths of connection ids differ from the IETF's.
func isGoogleQUIC(b []byte) bool {
	if len(b) < gquicHeader+12 {
		return false
	}
	version := b[9:13]
	const hasVersion, longID, multipath, reserved = 0x01, 0x08, 0x40, 0x80
	if long := b[0]&0xc0 == 0xc0; long {
		version = b[1:5]
	} else if b[0]&(hasVersion|longID) != hasVersion|longID || b[0]&(multipath|reserved) != 0 {
		return false
	}
	return version[0] == 'Q' && version[1] == '0' && version[2] >= '2' && version[2] <= '4' &&
		version[3] >= '0' && version[3] <= '9'
}

// googleName returns the server name of the client hello in a datagram of Google's QUIC.
// done: the datagram has a hello.
func googleName(b []byte) (name []byte, done bool) {
	start := bytes.Index(b[:min(len(b), gquicHeader+gquicSearch)], []byte("CHLO"))
	if start < 0 || len(b) < start+8 {
		return nil, false
	}
	// The message: its tag, the number of tags and two bytes of padding. Then for each tag
	// its name and the end of its value, then the values.
	tags := int(binary.LittleEndian.Uint16(b[start+4:]))
	table := b[start+8:]
	if tags > gquicTags || len(table) < 8*tags {
		return nil, true
	}
	values, from := table[8*tags:], 0
	for ; tags > 0; tags, table = tags-1, table[8:] {
		end := binary.LittleEndian.Uint32(table[4:])
		if end > uint32(len(values)) || int(end) < from {
			return nil, true
		}
		if string(table[:4]) == "SNI\x00" {
			return values[from:end], true
		}
		from = int(end)
	}
	return nil, true
}
