// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// unpack makes packets of bytes: for each a byte of flags (1: from A, 2: UDP), two bytes
// each for the sequence number and the length, and the payload.
func unpack(b []byte) (packets []*Packet) {
	const header = 5
	for len(b) > header && len(packets) < 2*Budget {
		p := &Packet{Proto: flow.TCP, FromA: b[0]&1 != 0, SrcPort: 40000, DstPort: 443, Seq: uint32(binary.BigEndian.Uint16(b[1:]))}
		if b[0]&2 != 0 {
			p.Proto = flow.UDP
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		b = b[header:]
		n = min(n, len(b))
		p.Payload, p.Length = b[:n:n], n
		if b = b[n:]; p.Proto == flow.UDP {
			p.Length += len(b) % 5
		}
		if len(p.Payload) > 0 {
			packets = append(packets, p)
		}
	}
	return packets
}

// pack is the reverse of unpack.
func pack(packets ...*Packet) (b []byte) {
	for _, p := range packets {
		flags := byte(0)
		if p.FromA {
			flags |= 1
		}
		if p.Proto == flow.UDP {
			flags |= 2
		}
		b = append(b, flags)
		b = append(b, u16(int(p.Seq&0xffff), len(p.Payload))...)
		b = append(b, p.Payload...)
	}
	return b
}

// FuzzFlow feeds packets. It checks that they stay as they are, that the work ends, and
// that the evidence is printable.
func FuzzFlow(f *testing.F) {
	hello := records(simpleHello("www.example.org", 0), 1<<14)
	initial := quicPacket{version: 1, frames: cryptoFrame(0, simpleHello("www.example.org", 0))}.build(f)
	f.Add(pack(tcpPacket(1, hello)))
	f.Add(pack(tcpPacket(51, hello[50:]), tcpPacket(1, hello[:50])))
	f.Add(pack(tcpPacket(1, []byte("a STARTTLS\r\n")), fromServer(tcpPacket(1, []byte("a OK\r\n"))), tcpPacket(13, hello)))
	f.Add(pack(tcpPacket(1, []byte("GET / HTTP/1.1\r\nHost: www.")), tcpPacket(28, []byte("example.org\r\n\r\n"))))
	f.Add(pack(udpPacket(initial), fromServer(udpPacket(initial))))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		packets := unpack(b)
		var fl Flow
		for i, p := range packets {
			fl.Add(p)
			check(t, &fl)
			if i >= Budget && fl.Pending() {
				t.Errorf("pending after %d packets", i)
			}
		}
		fl.Release()
		if windowsHeld.Load() != 0 {
			t.Errorf("%d windows are held after Release", windowsHeld.Load())
		}
		if !bytes.Equal(b, before) {
			t.Error("a packet has changed")
		}
	})
}

// FuzzHello reads a client hello whole and cut at some place, of any kind.
func FuzzHello(f *testing.F) {
	f.Add(simpleHello("www.example.org", 10)[handshakeHeader:], 60)
	f.Add(helloSpec{extensions: [][]byte{extension(extEncryptedHello, make([]byte, 20)), extensionALPN("\x0a\x0a", "h3")}}.message()[handshakeHeader:], 9)
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		for _, kind := range []helloKind{helloTLS, helloQUIC, helloDTLS} {
			var whole, part Flow
			whole.hello(body, len(body), kind, flow.NameTLS)
			if cut >= 0 && cut < len(body) {
				part.hello(body[:cut], len(body), kind, flow.NameTLS)
				// A part may lack the name, but it has no other, except a public one.
				if part.name != "" && part.name != whole.name && whole.name != flow.HiddenName {
					t.Errorf("%q after %d bytes, %q of all %d", part.name, cut, whole.name, len(body))
				}
				if part.ja4 != "" {
					t.Errorf("fingerprint %q after %d of %d bytes", part.ja4, cut, len(body))
				}
			}
			whole.decide(flow.ProtocolTLS, sigClientHello)
			whole.finished = true
			check(t, &whole)
		}
	})
}

// FuzzQUIC gives two datagrams with any headers, and an Initial packet with any frames.
func FuzzQUIC(f *testing.F) {
	hello := cryptoFrame(0, simpleHello("www.example.org", 0))
	f.Add(quicPacket{version: 1, frames: hello}.build(f), hello)
	f.Add(quicPacket{version: 0x6b3343cf, kind: quicHandshake, frames: hello}.build(f), []byte{frameACKECN, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("\x09connect1Q043\x01----------------CHLO\x01\x00\x00\x00SNI\x00\x0f\x00\x00\x00www.example.org"), []byte(nil))
	f.Add([]byte("\xf0\x00\x00\x00\x01\x00\x08serveridtokentokentokentoken"), []byte{frameCrypto, 0x80, 0, 0xff, 0xff, 1, 1})
	f.Fuzz(func(t *testing.T, header, frames []byte) {
		var fl Flow
		fl.Add(udpPacket(header))
		if frames = frames[:min(len(frames), 1400)]; len(frames) >= 4 {
			fl.Add(udpPacket(quicPacket{version: 1, frames: frames}.build(t)))
			if e := fl.Evidence(); len(header) == 0 && e.Protocol != flow.ProtocolQUIC {
				t.Errorf("an Initial packet is %v", e.Protocol)
			}
		}
		fl.Add(udpPacket(header))
		check(t, &fl)
		fl.Release()
		if windowsHeld.Load() != 0 {
			t.Errorf("%d windows are held after Release", windowsHeld.Load())
		}
	})
}
