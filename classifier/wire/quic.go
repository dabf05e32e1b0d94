// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
)

const (
	maxCID = 20 // longest connection id of all known versions (RFC 9000, section 17.2)

	// minFirstCID is the shortest connection id that a client may choose for its first
	// packets (RFC 9000, section 7.2).
	minFirstCID = 8

	// minFirstDatagram is the smallest datagram of a client with an Initial packet
	// (RFC 9000, section 14.1).
	minFirstDatagram = 1200

	sampleSize = 16 // header protection (RFC 9001, section 5.4.2)
	tagSize    = 16 // AES-GCM

	// maxQUICPacket is the largest Initial packet that is decrypted.
	maxQUICPacket = 2048
)

// Types of long header packets in version 1; version 2 numbers them differently.
const (
	quicInitial = iota
	quicZeroRTT
	quicHandshake
	quicRetry
)

// quicVersion is what protects the Initial packets of a version.
type quicVersion struct {
	salt  [20]byte
	label string // prefix of the key labels
	types [4]int // meaning of the type bits
}

var (
	typesV1 = [4]int{quicInitial, quicZeroRTT, quicHandshake, quicRetry}

	// RFC 9001, section 5.2; draft-ietf-quic-tls-33 introduced this salt.
	quicV1 = quicVersion{salt("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic ", typesV1}
	// RFC 9369, section 3.
	quicV2 = quicVersion{
		salt("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2 ",
		[4]int{quicRetry, quicInitial, quicZeroRTT, quicHandshake},
	}
	// draft-ietf-quic-tls-29 to -32, section 5.2.
	quicDraft29 = quicVersion{salt("afbfec289993d24c9e9786f19c6111e04390a899"), "quic ", typesV1}
	// draft-ietf-quic-tls-23 to -28, section 5.2. Meta's mvfst still used 27 in 2021.
	quicDraft23 = quicVersion{salt("c3eef712c72ebb5a11a7d2432bb46365bef9f502"), "quic ", typesV1}
)

// salt reads a salt as the RFCs print it.
func salt(digits string) (s [20]byte) {
	for i := range s {
		s[i] = digit(digits[2*i])<<4 | digit(digits[2*i+1])
	}
	return s
}

func digit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// versionOf returns how a version protects its Initial packets, nil if that is not known.
func versionOf(v uint32) *quicVersion {
	switch {
	case v == 1:
		return &quicV1
	case v == 0x6b3343cf:
		return &quicV2
	case v == 0xff000021 || v == 0xff000022: // draft-33, -34
		return &quicV1
	case v >= 0xff00001d && v <= 0xff000020:
		return &quicDraft29
	case v >= 0xff000017 && v <= 0xff00001c || v == 0xfaceb002:
		return &quicDraft23
	}
	return nil
}

// plausibleVersion reports whether a version that is not known may be QUIC: drafts,
// versions that are reserved to keep servers tolerant (RFC 9000, section 15), Google's
// Q043 to Q050 and T050, and Meta's mvfst.
func plausibleVersion(v uint32) bool {
	switch {
	case v&0x0f0f0f0f == 0x0a0a0a0a, v>>8 == 0xff0000, v>>4 == 0xfaceb00, v == 0x709a50c4:
		return true
	}
	letter, digits := byte(v>>24), v&0xffffff
	return (letter == 'Q' || letter == 'T') && digits >= 0x303433 && digits <= 0x303539 && byte(digits)-'0' < 10
}

// connectionID is a connection id.
type connectionID struct {
	bytes [maxCID]byte
	n     int
}

func makeCID(b []byte) (id connectionID) {
	id.n = copy(id.bytes[:], b)
	return id
}

// longHeader is a packet with a long header (RFC 9000, section 17.2).
type longHeader struct {
	version  *quicVersion
	raw      uint32 // version; 0: negotiation
	kind     int
	dcid     []byte
	number   int // offset of the packet number
	end      int // offset of the packet's end
	captured bool
}

// parseLong reads the long header at the beginning of b. onWire is the length of the rest
// of the datagram, which may be more than len(b). ok is false if b is no such packet.
func parseLong(b []byte, onWire int) (h longHeader, ok bool) {
	const form, fixed = 0x80, 0x40
	if len(b) < 7 || b[0]&form == 0 {
		return h, false
	}
	r := reader{b: b[1:]}
	h.raw = uint32(r.uint(4))
	h.dcid = r.vector(1)
	scid := r.vector(1)
	if r.bad || len(h.dcid) > maxCID || len(scid) > maxCID {
		return h, false
	}
	h.version = versionOf(h.raw)
	switch {
	case h.raw == 0:
		h.end = onWire
		return h, negotiation(r.b, onWire-(len(b)-len(r.b)))
	case b[0]&fixed == 0:
		return h, false
	case h.version == nil:
		h.end = onWire
		return h, plausibleVersion(h.raw) && (onWire >= minFirstDatagram || len(h.dcid)+len(scid) >= minFirstCID)
	}
	h.kind = h.version.types[b[0]>>4&3]
	if h.kind == quicRetry {
		h.end = onWire
		return h, onWire-(len(b)-len(r.b)) > tagSize && len(scid) > 0
	}
	if h.kind == quicInitial {
		r.bytes(r.varint()) // token
	}
	length := r.varint()
	h.number = len(b) - len(r.b)
	h.end = h.number + length
	h.captured = h.end <= len(b)
	// The packet number is at most four bytes, and the sample comes after four.
	return h, !r.bad && length >= 4+sampleSize && h.end <= onWire
}

// negotiation reports whether b is the list of a Version Negotiation packet with at least
// one known version (RFC 9000, section 17.2.1).
func negotiation(b []byte, onWire int) bool {
	if onWire < 4 || onWire%4 != 0 {
		return false
	}
	for r := (reader{b: b}); len(r.b) >= 4; {
		if versionOf(uint32(r.uint(4))) != nil {
			return true
		}
	}
	return false
}

// initialKeys protect the Initial packets of a client.
type initialKeys struct {
	aead cipher.AEAD
	hp   cipher.Block
	iv   [12]byte
}

// set derives the keys from the client's first destination connection id (RFC 9001,
// section 5.2). It reports whether that worked.
func (k *initialKeys) set(v *quicVersion, cid []byte) bool {
	initial, err := hkdf.Extract(sha256.New, cid, v.salt[:])
	if err != nil {
		return false
	}
	var keys [3][]byte
	secret, err := expandLabel(initial, "client in", sha256.Size)
	for i, part := range [...]struct {
		name string
		size int
	}{{"key", 16}, {"iv", 12}, {"hp", 16}} {
		if err == nil {
			keys[i], err = expandLabel(secret, v.label+part.name, part.size)
		}
	}
	if err != nil {
		return false
	}
	block, err := aes.NewCipher(keys[0])
	if err != nil {
		return false
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return false
	}
	copy(k.iv[:], keys[1])
	k.hp, err = aes.NewCipher(keys[2])
	return err == nil
}

// expandLabel is HKDF-Expand-Label with an empty context (RFC 8446, section 7.1).
func expandLabel(secret []byte, label string, size int) ([]byte, error) {
	const prefix = "tls13 "
	info := make([]byte, 0, 32)
	info = append(info, byte(size>>8), byte(size), byte(len(prefix)+len(label)))
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, 0)
	return hkdf.Expand(sha256.New, secret, string(info), size)
}

// open removes the protection of the packet at the beginning of b (RFC 9001, sections
// 5.3 and 5.4) and returns its frames, in space of scratch. b stays as it is. ok is false
// if the keys do not fit.
func (k *initialKeys) open(b []byte, h *longHeader, scratch *window) (frames []byte, ok bool) {
	if k.aead == nil || h.end-h.number < 4+sampleSize || h.end > maxQUICPacket || h.end > len(b) {
		return nil, false
	}
	var mask [aes.BlockSize]byte
	k.hp.Encrypt(mask[:], b[h.number+4:h.number+4+sampleSize])
	size := int((b[0]^mask[0])&3) + 1
	// The header without protection is authenticated, too.
	header := scratch.data[:h.number+size]
	copy(header, b)
	header[0] ^= mask[0] & 0x0f
	nonce := k.iv
	for i := range size {
		header[h.number+i] ^= mask[1+i]
		// A client's first packets have small numbers: the encoded part is the number.
		nonce[len(nonce)-size+i] ^= header[h.number+i]
	}
	sealed := b[h.number+size : h.end]
	frames, err := k.aead.Open(scratch.data[len(header):len(header)], nonce[:], sealed, header)
	return frames, err == nil
}

// Frames of Initial packets (RFC 9000, section 12.4).
const (
	framePadding = 0
	framePing    = 1
	frameACK     = 2
	frameACKECN  = 3
	frameCrypto  = 6
)

// crypto puts the CRYPTO frames of a packet into the window.
func (w *window) crypto(frames []byte) {
	r := reader{b: frames}
	for len(r.b) > 0 && !r.bad {
		if r.b[0] == framePadding { // mostly hundreds of them
			r.b = r.b[1:]
			continue
		}
		switch kind := r.varint(); kind {
		case framePing:
		case frameACK, frameACKECN: // section 19.3
			r.varint()
			r.varint()
			ranges := r.varint()
			r.varint()
			for i := 0; i < 2*ranges && !r.bad; i++ {
				r.varint()
			}
			for i := 0; i < 3 && kind == frameACKECN; i++ {
				r.varint()
			}
		case frameCrypto: // section 19.6
			offset := r.varint()
			data := r.bytes(r.varint())
			if !r.bad {
				w.put(offset, data)
			}
		default:
			return // CONNECTION_CLOSE, or not allowed here
		}
	}
}
