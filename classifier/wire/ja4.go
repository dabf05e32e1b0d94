// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// ja4Size is the length of a fingerprint: "t13d1516h2_8daaf6152771_e5627efa2ab1".
const ja4Size = 10 + 1 + 12 + 1 + 12

// ja4 returns the JA4 fingerprint of the hello, "" if it was cut or has endless lists.
// The method is FoxIO's JA4 for TLS clients, which is licensed under the BSD licence;
// none of the other methods of that family is used here.
//
// It sorts the lists of the hello.
func (h *hello) ja4(kind helloKind) string {
	if !h.complete || h.ciphers.full || h.extensions.full || h.signatures.full {
		return ""
	}
	fp := make([]byte, 0, ja4Size)
	fp = append(fp, byte(kind))
	fp = append(fp, versionCode(h.version)...)
	if h.hasName {
		fp = append(fp, 'd')
	} else {
		fp = append(fp, 'i')
	}
	fp = appendCount(fp, h.ciphers.n)
	fp = appendCount(fp, h.extensions.n)
	fp = appendALPN(fp, h.alpn)

	// The texts that are hashed hold four digits and a separator for each value.
	var text [2 * maxList * 5]byte
	fp = append(fp, '_')
	ciphers := h.ciphers.values[:h.ciphers.n]
	slices.Sort(ciphers)
	fp = appendHash(fp, appendValues(text[:0], ciphers))

	fp = append(fp, '_')
	extensions := h.extensions.values[:h.extensions.n]
	slices.Sort(extensions)
	b := text[:0]
	for _, ext := range extensions {
		if ext != extServerName && ext != extALPN {
			b = appendValues(b, []uint16{ext})
		}
	}
	if len(b) > 0 && h.signatures.n > 0 {
		b = appendValues(append(b, '_'), h.signatures.values[:h.signatures.n])
	}
	return string(appendHash(fp, b))
}

// versionCode returns the two characters for a version of SSL, TLS or DTLS.
func versionCode(version int) string {
	switch version {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	case 0x0002:
		return "s2"
	case 0xfeff:
		return "d1"
	case 0xfefd:
		return "d2"
	case 0xfefc:
		return "d3"
	}
	return "00"
}

// appendCount appends two digits, at most 99.
func appendCount(fp []byte, n int) []byte {
	n = min(n, 99)
	return append(fp, byte('0'+n/10), byte('0'+n%10))
}

// appendALPN appends the first and the last character of the first protocol. If one of
// them is neither a letter nor a digit, the first and the last digit of the protocol in
// hexadecimal are used.
func appendALPN(fp, alpn []byte) []byte {
	if len(alpn) == 0 {
		return append(fp, "00"...)
	}
	first, last := alpn[0], alpn[len(alpn)-1]
	if alphanumeric(first) && alphanumeric(last) {
		return append(fp, first, last)
	}
	const digits = "0123456789abcdef"
	return append(fp, digits[first>>4], digits[last&15])
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// appendValues appends the values with four hexadecimal digits each, separated by commas
// from each other and from earlier values, but not from "_".
func appendValues(b []byte, values []uint16) []byte {
	for _, v := range values {
		if n := len(b); n > 0 && b[n-1] != '_' {
			b = append(b, ',')
		}
		b = hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)})
	}
	return b
}

// appendHash appends the first 12 digits of the SHA-256 of a text, zeros for an empty one.
func appendHash(fp, text []byte) []byte {
	if len(text) == 0 {
		return append(fp, "000000000000"...)
	}
	sum := sha256.Sum256(text)
	return hex.AppendEncode(fp, sum[:6])
}
