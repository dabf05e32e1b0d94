// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// rfcFrame is the CRYPTO frame of RFC 9001, appendix A.2, and RFC 9369, appendix A.2.
const rfcFrame = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868" +
	"04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578" +
	"616d706c652e636f6dff01000100000a00080006001d00170018001000070005" +
	"04616c706e000500050100000000003300260024001d00209370b2c9caa47fba" +
	"baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400" +
	"0d0010000e0403050306030203080408050806002d00020101001c0002400100" +
	"3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000" +
	"75300901100f088394c8f03e51570806048000ffff"

// protect does what a client does: it encrypts the frames and protects the header, whose
// packet number is its last size bytes.
func protect(t testing.TB, k *initialKeys, header, frames []byte, size int) []byte {
	t.Helper()
	nonce := k.iv
	for i := range size {
		nonce[len(nonce)-size+i] ^= header[len(header)-size+i]
	}
	packet := k.aead.Seal(bytes.Clone(header), nonce[:], frames, header)
	number := len(header) - size
	var mask [aes.BlockSize]byte
	k.hp.Encrypt(mask[:], packet[number+4:])
	packet[0] ^= mask[0] & 0x0f
	for i := range size {
		packet[number+i] ^= mask[1+i]
	}
	return packet
}

// quicPacket is a long header packet to be built.
type quicPacket struct {
	version    uint32
	kind       int
	dcid, scid []byte
	token      []byte
	first      []byte // connection id that the keys come from; nil: dcid
	number     int
	frames     []byte
	pad        int // up to this many bytes of the packet
}

func (q quicPacket) build(t testing.TB) []byte {
	t.Helper()
	version := versionOf(q.version)
	if q.dcid == nil {
		q.dcid = []byte("\x83\x94\xc8\xf0\x3e\x51\x57\x08")
	}
	if q.first == nil {
		q.first = q.dcid
	}
	const size = 2 // of the packet number
	header := []byte{0xc0 | byte(slices.Index(version.types[:], q.kind))<<4 | size - 1}
	header = binary.BigEndian.AppendUint32(header, q.version)
	header = append(header, vec(1, q.dcid)...)
	header = append(header, vec(1, q.scid)...)
	if q.kind == quicInitial {
		header = append(header, vec(1, q.token)...)
	}
	frames := bytes.Clone(q.frames)
	if missing := q.pad - len(header) - 2 - size - len(frames) - tagSize; missing > 0 {
		frames = append(frames, make([]byte, missing)...)
	}
	header = append(header, u16(0x4000|size+len(frames)+tagSize)...)
	header = append(header, u16(q.number)...)
	var keys initialKeys
	if !keys.set(version, q.first) {
		t.Fatal("no keys")
	}
	return protect(t, &keys, header, frames, size)
}

// cryptoFrame is a piece of a handshake message.
func cryptoFrame(offset int, data []byte) []byte {
	b := append([]byte{frameCrypto}, u16(0x4000|offset)...)
	return append(append(b, u16(0x4000|len(data))...), data...)
}

// The encryption is deterministic: a packet that has the RFC's protected header and
// authentication tag is the RFC's packet.
func TestRFCVectors(t *testing.T) {
	for _, test := range []struct {
		version                           uint32
		iv, header, protected, start, tag string
	}{
		{ // RFC 9001, appendices A.1 and A.2
			1, "fa044b2f42a3fd3b46fb255c",
			"c300000001088394c8f03e5157080000449e00000002", "c000000001088394c8f03e5157080000449e7b9aec34",
			"d1b1c98dd7689fb8ec11d242b123dc9b", "e221af44860018ab0856972e194cd934",
		},
		{ // RFC 9369, appendices A.1 and A.2
			0x6b3343cf, "91f73e2351d8fa91660e909f",
			"d36b3343cf088394c8f03e5157080000449e00000002", "d76b3343cf088394c8f03e5157080000449ea0c95e82",
			"ffe67b6abcdb4298b485dd04de806071", "a18b2faa745b6fe189cf772a9f84cbfc",
		},
	} {
		var keys initialKeys
		if !keys.set(versionOf(test.version), unhex(t, "8394c8f03e515708")) {
			t.Fatal("no keys")
		}
		if got := hex.EncodeToString(keys.iv[:]); got != test.iv {
			t.Errorf("version %#x: iv %s, want %s", test.version, got, test.iv)
		}
		frames := append(unhex(t, rfcFrame), make([]byte, 1162-len(rfcFrame)/2)...)
		packet := protect(t, &keys, unhex(t, test.header), frames, 4)
		got := []string{
			hex.EncodeToString(packet[:22]), hex.EncodeToString(packet[22:38]), hex.EncodeToString(packet[len(packet)-16:]),
		}
		if wanted := []string{test.protected, test.start, test.tag}; !slices.Equal(got, wanted) || len(packet) != 1200 {
			t.Fatalf("version %#x: packet of %d bytes %v, want 1200 bytes %v", test.version, len(packet), got, wanted)
		}
		f := feed(t, udpPacket(packet))
		want(t, f, flow.ProtocolQUIC, "example.com")
		if e := f.Evidence(); e.ALPN != "alpn" || e.NameSource != flow.NameQUIC || f.Pending() {
			t.Errorf("evidence %+v, want alpn", e)
		}
	}
}

// pieces cuts a message into CRYPTO frames of the given size.
func pieces(message []byte, size int) (frames [][]byte) {
	for offset := 0; offset < len(message); offset += size {
		frames = append(frames, cryptoFrame(offset, message[offset:min(offset+size, len(message))]))
	}
	return frames
}

func TestQUICFramesInAnyOrder(t *testing.T) {
	message := simpleHello("video.example.org", 1500)
	frames := pieces(message, len(message)/6+1)
	ack := []byte{frameACKECN, 0, 0, 1, 0, 0, 0, 1, 2, 3} // with one more range and three counts
	for _, version := range []uint32{1, 0x6b3343cf, 0xff00001d, 0xff000020, 0xff000021, 0xff000022} {
		permutations(6, func(order []int) {
			var packets []*Packet
			for i := 0; i < 6; i += 2 { // three datagrams with two frames each
				body := slices.Concat([]byte{framePing}, frames[order[i]], []byte{framePadding, framePadding}, ack, frames[order[i+1]])
				packets = append(packets, udpPacket(quicPacket{version: version, number: i, frames: body, pad: 1200}.build(t)))
			}
			// The server answers in between.
			packets = slices.Insert(packets, 1, fromServer(udpPacket(quicPacket{
				version: version, dcid: []byte{}, scid: []byte("serverid"), first: packets[0].Payload[6:14], frames: ack, pad: 1200,
			}.build(t))))
			f := feed(t, packets...)
			want(t, f, flow.ProtocolQUIC, "video.example.org")
			if f.Pending() || f.Evidence().JA4 == "" {
				t.Fatalf("version %#x, order %v: %+v", version, order, f.Evidence())
			}
		})
	}
}

func TestQUICCoalesced(t *testing.T) {
	frames := pieces(simpleHello("video.example.org", 0), 60)
	one := quicPacket{version: 1, number: 0, frames: frames[1]}.build(t)
	early := quicPacket{version: 1, kind: quicZeroRTT, frames: make([]byte, 50)}.build(t)
	two := quicPacket{version: 1, number: 1, frames: frames[0], pad: 900}.build(t)
	datagram := slices.Concat(one, early, two)
	for _, rest := range frames[2:] {
		datagram = append(datagram, quicPacket{version: 1, number: 2, frames: rest}.build(t)...)
	}
	f := feed(t, udpPacket(append(datagram, 0, 0, 0)))
	want(t, f, flow.ProtocolQUIC, "video.example.org")
}

// After a Retry the connection id is the server's, and the keys change with it. Without
// one, it changes too, when the server has answered, but the keys stay.
func TestQUICNewConnectionID(t *testing.T) {
	message := simpleHello("video.example.org", 1300)
	frames := pieces(message, 1000)
	first := []byte("firstcid")
	one := udpPacket(quicPacket{version: 1, dcid: first, frames: frames[0], pad: 1200}.build(t))
	same := udpPacket(quicPacket{version: 1, dcid: []byte("serverid"), first: first, number: 1, frames: frames[1], pad: 1200}.build(t))
	want(t, feed(t, one, same), flow.ProtocolQUIC, "video.example.org")

	retry := fromServer(udpPacket(append([]byte("\xf0\x00\x00\x00\x01\x00\x08serverid"), make([]byte, 40)...)))
	var again []*Packet
	for i, frame := range frames {
		again = append(again, udpPacket(quicPacket{version: 1, dcid: []byte("serverid"), token: []byte("token"), number: i, frames: frame, pad: 1200}.build(t)))
	}
	want(t, feed(t, append([]*Packet{one, retry}, again...)...), flow.ProtocolQUIC, "video.example.org")
	want(t, feed(t, append([]*Packet{one}, again...)...), flow.ProtocolQUIC, "video.example.org") // Retry not seen
}

func TestQUICWithoutName(t *testing.T) {
	initial := quicPacket{version: 1, frames: cryptoFrame(0, simpleHello("video.example.org", 0)), pad: 1200}.build(t)
	damaged := bytes.Clone(initial)
	damaged[600] ^= 1
	cut := udpPacket(initial[:1000])
	cut.Length = 1200
	for name, test := range map[string]struct {
		packet *Packet
		want   flow.Protocol
	}{
		"damaged":                      {udpPacket(damaged), flow.ProtocolQUIC},
		"cut by the capture":           {cut, flow.ProtocolQUIC},
		"server":                       {fromServer(udpPacket(quicPacket{version: 1, dcid: []byte{1}, scid: []byte("server"), frames: []byte{1}, pad: 1200}.build(t))), flow.ProtocolQUIC},
		"version negotiation":          {udpPacket([]byte("\x80\x00\x00\x00\x00\x00\x02ab\x0a\x1a\x2a\x3a\x00\x00\x00\x01")), flow.ProtocolQUIC},
		"reserved version":             {udpPacket(append([]byte("\xc0\x1a\x2a\x3a\x4a\x08connecti\x00"), make([]byte, 1200)...)), flow.ProtocolQUIC},
		"unknown version":              {udpPacket(append([]byte("\xc0\x12\x34\x56\x78\x08connecti\x00"), make([]byte, 1200)...)), flow.ProtocolUnknown},
		"short header":                 {udpPacket(append([]byte("\x40connecti"), make([]byte, 1200)...)), flow.ProtocolUnknown},
		"long connection id":           {udpPacket(append([]byte("\xc0\x00\x00\x00\x01\x15"), make([]byte, 1200)...)), flow.ProtocolUnknown},
		"long length":                  {udpPacket(initial[:1000]), flow.ProtocolUnknown},
		"negotiation of nothing known": {udpPacket([]byte("\x80\x00\x00\x00\x00\x00\x02ab\x12\x34\x56\x78")), flow.ProtocolUnknown},
	} {
		f := feed(t, test.packet)
		if e := f.Evidence(); e.Protocol != test.want || e.Name != "" {
			t.Errorf("%s: %+v, want %v", name, e, test.want)
		}
	}
}

// A client may put any number of tiny Initial packets into a datagram.
func TestQUICManyInitials(t *testing.T) {
	var datagram []byte
	for i := byte(0); len(datagram) < 1400; i++ {
		datagram = append(datagram, "\xc0\x00\x00\x00\x01\x08connect\x00\x00\x00\x14"...)
		datagram = append(datagram, make([]byte, 20)...)
	}
	f := &Flow{}
	allocs := testing.AllocsPerRun(10, func() {
		*f = Flow{}
		f.Add(udpPacket(datagram))
	})
	if f.Evidence().Protocol != flow.ProtocolQUIC {
		t.Error("not recognised")
	}
	if allocs > 100 {
		t.Errorf("%v allocations: keys were derived more than once", allocs)
	}
}

func TestGoogleQUIC(t *testing.T) {
	entry := func(tag string, end int) []byte { return binary.LittleEndian.AppendUint32([]byte(tag), uint32(end)) }
	hello := slices.Concat([]byte("CHLO\x02\x00\x00\x00"), entry("PAD\x00", 5), entry("SNI\x00", 20), []byte("-----www.example.org"), make([]byte, 900))
	for name, header := range map[string]string{
		"Q025": "\x0dconnect1Q025\x01",
		"Q043": "\x09connect1Q043\x01",
		"Q046": "\xc3Q046\x50connect1\x00\x00\x00\x01",
	} {
		b := slices.Concat([]byte(header), make([]byte, 16), hello)
		f := feed(t, udpPacket(b))
		want(t, f, flow.ProtocolQUIC, "www.example.org")
		if f.Evidence().NameSource != flow.NameQUIC || f.Pending() {
			t.Errorf("%s: %+v, pending %v", name, f.Evidence(), f.Pending())
		}
		for cut := range min(len(b), 120) {
			feed(t, udpPacket(b[:cut]))
		}
		for i := range 90 { // lying lengths
			lie := bytes.Clone(b)
			lie[i] ^= 0xff
			feed(t, udpPacket(lie))
		}
	}
	want(t, feed(t, udpPacket(append([]byte("\x09connect1Z043\x01"), make([]byte, 100)...))), flow.ProtocolUnknown, "")
}
