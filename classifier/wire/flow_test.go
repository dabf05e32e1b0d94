// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/tls"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// noise returns n bytes of a flow that is no known protocol.
func noise(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	b[0] = 0x01
	return b
}

func TestBudget(t *testing.T) {
	for _, p := range []*Packet{tcpPacket(1, noise(1400)), udpPacket(noise(1200))} {
		f := &Flow{}
		n := 0
		for ; f.Pending(); n++ {
			f.Add(p)
		}
		if n > Budget || f.window != nil {
			t.Errorf("%v: pending for %d packets, at most %d are allowed; window %v", p.Proto, n, Budget, f.window)
		}
		f.Add(p)
		if e := f.Evidence(); e != (flow.Evidence{}) {
			t.Errorf("%v: evidence %+v of noise", p.Proto, e)
		}
	}
	f := &Flow{}
	f.Add(tcpPacket(1, nil))
	if f.seen != 0 || !f.Pending() {
		t.Error("a packet without payload counts")
	}
}

// Many flows with unfinished hellos take bounded memory, and new hellos in one segment
// are still read.
func TestManyUnfinishedHellos(t *testing.T) {
	b := records(simpleHello("video.example.org", 0), 1<<14)
	late := records(helloSpec{extensions: [][]byte{extensionName("a.example"), extension(21, make([]byte, 600))}}.message(), 1<<14)
	flows := make([]Flow, maxWindows+100)
	for i := range flows {
		flows[i].Add(tcpPacket(1, b[:60]))
	}
	if n := windowsHeld.Load(); n > maxWindows {
		t.Errorf("%d windows are held, at most %d are allowed", n, maxWindows)
	}
	var whole, part Flow
	whole.Add(tcpPacket(1, b))
	part.Add(tcpPacket(1, late[:300]))
	want(t, &whole, flow.ProtocolTLS, "video.example.org")
	want(t, &part, flow.ProtocolTLS, "a.example")
	for i := range flows {
		flows[i].Release()
	}
	if n := windowsHeld.Load(); n != 0 {
		t.Errorf("%d windows are held after all flows were released", n)
	}
}

func TestAllocations(t *testing.T) {
	hello := tcpPacket(1, tlsHello(t, &tls.Config{ServerName: "www.example.org", NextProtos: []string{"h2"}}))
	request := tcpPacket(1, []byte("GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"))
	for name, test := range map[string]struct {
		packet  *Packet
		allowed float64 // the strings of the evidence
	}{
		"nothing, TCP": {tcpPacket(1, noise(1400)), 0},
		"nothing, UDP": {udpPacket(noise(1200)), 0},
		"TLS hello":    {hello, 2},
		"HTTP request": {request, 1},
	} {
		var f Flow
		runtime.GC() // not in the middle of the measurement, where it would empty the pool
		got := testing.AllocsPerRun(100, func() {
			f.Release()
			f = Flow{}
			f.Add(test.packet)
		})
		f.Release()
		if got > test.allowed {
			t.Errorf("%s: %v allocations, want at most %v", name, got, test.allowed)
		}
	}
}

func benchmark(b *testing.B, packets ...*Packet) {
	b.ReportAllocs()
	for b.Loop() {
		var f Flow
		for _, p := range packets {
			f.Add(p)
		}
		f.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(packets)), "ns/packet")
}

func BenchmarkNoMatchTCP(b *testing.B) { benchmark(b, tcpPacket(1, noise(1400))) }

func BenchmarkNoMatchUDP(b *testing.B) { benchmark(b, udpPacket(noise(1200))) }

func BenchmarkTLSHello(b *testing.B) {
	benchmark(b, tcpPacket(1, tlsHello(b, &tls.Config{ServerName: "www.example.org", NextProtos: []string{"h2"}})))
}

func BenchmarkTLSHelloInTwoSegments(b *testing.B) {
	hello := tlsHello(b, &tls.Config{ServerName: "www.example.org", NextProtos: []string{"h2"}})
	benchmark(b, tcpPacket(1, hello[:900]), tcpPacket(901, hello[900:]))
}

func BenchmarkQUICInitial(b *testing.B) {
	frames := cryptoFrame(0, simpleHello("www.example.org", 300))
	benchmark(b, udpPacket(quicPacket{version: 1, frames: frames, pad: 1200}.build(b)))
}

func BenchmarkHTTPRequest(b *testing.B) {
	benchmark(b, tcpPacket(1, []byte("GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n")))
}
