// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// unhex reads hexadecimal digits with spaces between them.
func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vec returns the parts with their length before them, in n bytes.
func vec(n int, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return append(length[4-n:len(length):len(length)], body...)
}

func u16(values ...int) (b []byte) {
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

// extension is one of a hello.
func extension(kind int, data []byte) []byte { return append(u16(kind), vec(2, data)...) }

func extensionName(name string) []byte {
	return extension(extServerName, vec(2, []byte{0}, vec(2, []byte(name))))
}

func extensionALPN(protocols ...string) []byte {
	var list [][]byte
	for _, p := range protocols {
		list = append(list, vec(1, []byte(p)))
	}
	return extension(extALPN, vec(2, list...))
}

// helloSpec says what a client hello is built of.
type helloSpec struct {
	version    int // 0: 0x0303
	ciphers    []int
	extensions [][]byte
	cookie     []byte // for DTLS; nil: TLS
}

// message returns the handshake message.
func (s helloSpec) message() []byte {
	if s.version == 0 {
		s.version = 0x0303
	}
	if s.ciphers == nil {
		s.ciphers = []int{0x1301}
	}
	body := append(u16(s.version), make([]byte, 32)...)
	body = append(body, vec(1, make([]byte, 32))...)
	if s.cookie != nil {
		body = append(body, vec(1, s.cookie)...)
	}
	body = append(body, vec(2, u16(s.ciphers...))...)
	body = append(body, vec(1, []byte{0})...)
	if s.extensions != nil {
		body = append(body, vec(2, s.extensions...)...)
	}
	return append([]byte{messageClientHello}, vec(3, body)...)
}

// records splits a handshake message into records of at most size bytes.
func records(message []byte, size int) (b []byte) {
	for len(message) > 0 {
		n := min(size, len(message))
		b = append(b, recordHandshake, 3, 1)
		b = append(b, vec(2, message[:n])...)
		message = message[n:]
	}
	return b
}

// simpleHello is a hello with a name and "h2", padded to about the size of the packet.
func simpleHello(name string, padding int) []byte {
	list := [][]byte{extensionName(name), extensionALPN("h2", "http/1.1")}
	if padding > 0 {
		list = append([][]byte{extension(21, make([]byte, padding))}, list...)
	}
	return helloSpec{extensions: list}.message()
}

// tlsHello is the hello of Go's TLS client: its records.
func tlsHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go func() { _ = tls.Client(client, config).Handshake() }()
	b := make([]byte, 1<<14)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// segment is a packet of a client to port 443.
func tcpPacket(seq uint32, payload []byte) *Packet {
	return &Packet{
		Proto: flow.TCP, FromA: true, SrcPort: 40000, DstPort: 443, Seq: seq,
		Payload: payload, Length: len(payload),
	}
}

func udpPacket(payload []byte) *Packet {
	return &Packet{
		Proto: flow.UDP, FromA: true, SrcPort: 40000, DstPort: 443,
		Payload: payload, Length: len(payload),
	}
}

// fromServer turns the direction of a packet round.
func fromServer(p *Packet) *Packet {
	q := *p
	q.FromA, q.SrcPort, q.DstPort = !p.FromA, p.DstPort, p.SrcPort
	return &q
}

// feed gives packets to a new flow and returns it. It checks what holds for every flow.
func feed(t testing.TB, packets ...*Packet) *Flow {
	t.Helper()
	held := windowsHeld.Load()
	f := &Flow{}
	for _, p := range packets {
		f.Add(p)
	}
	check(t, f)
	copied := *f
	copied.Release()
	if copied.window != nil || f.window != nil && windowsHeld.Load() != held {
		t.Errorf("%d windows are held after Release, %d before the flow", windowsHeld.Load(), held)
	}
	f.window = nil
	return f
}

// check checks what holds for every flow, whatever its packets are.
func check(t testing.TB, f *Flow) {
	t.Helper()
	e := f.Evidence()
	for _, text := range []string{e.Name, e.ALPN, e.JA4} {
		for _, c := range []byte(text) {
			if c <= ' ' || c > '~' {
				t.Errorf("evidence has byte %#x: %+q", c, e)
			}
		}
	}
	if len(e.Name) > flow.MaxName || len(e.ALPN) > 255 || len(e.JA4) != 0 && len(e.JA4) != ja4Size {
		t.Errorf("evidence is too long: %+v", e)
	}
	if (e.Name == "") != (e.NameSource == flow.NameNone) {
		t.Errorf("name %q has source %v", e.Name, e.NameSource)
	}
	if (e.Protocol == flow.ProtocolUnknown) != (f.Signature() == "") {
		t.Errorf("protocol %q has signature %q", e.Protocol, f.Signature())
	}
	if !f.Pending() && f.window != nil {
		t.Error("a flow that is not pending holds a window")
	}
}

// want compares the evidence of a flow.
func want(t testing.TB, f *Flow, protocol flow.Protocol, name string) {
	t.Helper()
	if e := f.Evidence(); e.Protocol != protocol || e.Name != name {
		t.Errorf("evidence %v %q, want %v %q", e.Protocol, e.Name, protocol, name)
	}
}
