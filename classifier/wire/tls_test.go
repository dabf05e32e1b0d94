// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

func TestHelloOfGo(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		b := tlsHello(t, &tls.Config{ServerName: "WWW.Example.Org", NextProtos: []string{"h2"}, MaxVersion: version})
		f := feed(t, tcpPacket(1, b))
		want(t, f, flow.ProtocolTLS, "www.example.org")
		e := f.Evidence()
		if prefix := fmt.Sprintf("t1%dd", version-0x301); e.ALPN != "h2" || !strings.HasPrefix(e.JA4, prefix) || e.NameSource != flow.NameTLS {
			t.Errorf("evidence %+v, want h2 and %s...", e, prefix)
		}
		if f.Pending() {
			t.Error("pending after a whole hello")
		}
	}
}

// permutations calls fn with each order of n things.
func permutations(n int, fn func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var swap func(int)
	swap = func(k int) {
		if k == n {
			fn(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			swap(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	swap(0)
}

func TestHelloInTwoSegments(t *testing.T) {
	b := records(simpleHello("video.example.org", 0), 1<<14)
	whole := feed(t, tcpPacket(1, b)).Evidence()
	for _, seq := range []uint32{1000, 0xffffffff - 20} { // the second one wraps round
		for cut := 1; cut < len(b); cut++ {
			one, two := tcpPacket(seq, b[:cut]), tcpPacket(seq+uint32(cut), b[cut:])
			overlap := tcpPacket(seq+uint32(cut/2), b[cut/2:])
			for name, packets := range map[string][]*Packet{
				"in order":                {one, two},
				"swapped":                 {two, one},
				"repeated":                {one, one, two},
				"overlapping":             {one, overlap},
				"swapped and overlapping": {overlap, one},
			} {
				f := feed(t, packets...)
				if e := f.Evidence(); e != whole || f.Pending() {
					t.Fatalf("cut after %d bytes, %s: %+v, want %+v", cut, name, e, whole)
				}
			}
		}
	}
}
