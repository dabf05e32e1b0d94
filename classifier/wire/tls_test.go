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

// A hello with a post-quantum key share has about 1,800 bytes; with two of them it needs
// three segments.
func TestHelloInThreeSegments(t *testing.T) {
	for _, size := range []int{1600, 3900} {
		b := records(simpleHello("video.example.org", size), 1<<14)
		whole := feed(t, tcpPacket(1, b)).Evidence()
		for _, cuts := range [][2]int{{1, 2}, {5, 9}, {6, len(b) - 1}, {len(b) / 3, 2 * len(b) / 3}, {len(b) - 2, len(b) - 1}} {
			parts := []*Packet{
				tcpPacket(7, b[:cuts[0]]),
				tcpPacket(7+uint32(cuts[0]), b[cuts[0]:cuts[1]]),
				tcpPacket(7+uint32(cuts[1]), b[cuts[1]:]),
			}
			permutations(3, func(order []int) {
				if e := feed(t, parts[order[0]], parts[order[1]], parts[order[1]], parts[order[2]]).Evidence(); e != whole {
					// A first piece that is longer than a segment does not fit before a later one.
					if room := cuts[order[0]-1]; order[0] == 0 || room <= before {
						t.Errorf("%d bytes, cut at %v, order %v: %+v, want %+v", size, cuts, order, e, whole)
					}
				}
			})
		}
	}
}

func TestHelloInSeveralRecords(t *testing.T) {
	message := simpleHello("video.example.org", 40)
	whole := feed(t, tcpPacket(1, records(message, 1<<14))).Evidence()
	for size := 1; size < len(message); size++ {
		b := records(message, size)
		half := len(b) / 2
		for _, packets := range [][]*Packet{
			{tcpPacket(1, b)},
			{tcpPacket(1, b[:half]), tcpPacket(1+uint32(half), b[half:])},
		} {
			if e := feed(t, packets...).Evidence(); e != whole {
				t.Errorf("records of %d bytes: %+v, want %+v", size, e, whole)
			}
		}
	}
}

// The first copy of a byte counts, as in most receivers.
func TestOverlapThatDiffers(t *testing.T) {
	b := records(simpleHello("video.example.org", 0), 1<<14)
	other := records(simpleHello("spoof.example.org", 0), 1<<14)
	want(t, feed(t, tcpPacket(1, b[:100]), tcpPacket(1, other), tcpPacket(101, b[100:])), flow.ProtocolTLS, "video.example.org")
}

// What is known of a hello that never ends is told, and the flow does not wait for ever.
func TestHelloWithoutEnd(t *testing.T) {
	b := records(simpleHello("video.example.org", 0), 1<<14)
	endless := []byte{recordHandshake, 3, 1, 0x40, 0, messageClientHello, 0, 0xff, 0xff}
	early := records(helloSpec{extensions: [][]byte{extensionName("video.example.org"), extension(21, make([]byte, 3000))}}.message(), 1<<14)
	cut := tcpPacket(1, early[:1400])
	cut.Length = len(early) // by the capture
	for name, test := range map[string]struct {
		packets []*Packet
		name    string
		pending bool
	}{
		"cut before the name": {[]*Packet{tcpPacket(1, b[:60])}, "", true},
		"cut after the name":  {[]*Packet{tcpPacket(1, early[:1400])}, "video.example.org", true},
		"cut by the capture":  {[]*Packet{cut}, "video.example.org", false},
		"endless message":     {[]*Packet{tcpPacket(1, endless), tcpPacket(10, make([]byte, 1400)), tcpPacket(1410, make([]byte, 1400))}, "", true},
		"other record inside": {[]*Packet{tcpPacket(1, append(append([]byte{}, records(simpleHello("a.example", 0), 30)[:70]...), recordAlert, 3, 3, 0, 2, 1, 0))}, "", false},
	} {
		f := feed(t, test.packets...)
		want(t, f, flow.ProtocolTLS, test.name)
		if f.Pending() != test.pending {
			t.Errorf("%s: pending %v, want %v", name, f.Pending(), test.pending)
		}
		if f.Evidence().JA4 != "" {
			t.Errorf("%s: fingerprint of a part: %q", name, f.Evidence().JA4)
		}
	}
	f := &Flow{}
	for i := range Budget {
		if !f.Pending() {
			t.Fatalf("not pending after %d packets", i)
		}
		f.Add(tcpPacket(1, b[:60]))
	}
	if f.Pending() || f.window != nil {
		t.Errorf("still pending after %d packets", Budget)
	}
	f.Add(tcpPacket(1, b))
	want(t, f, flow.ProtocolTLS, "")
}

// Every length field of a hello lies in turn.
func TestLyingLengths(t *testing.T) {
	b := records(simpleHello("video.example.org", 20), 1<<14)
	for i := range b {
		for _, v := range []byte{0, 1, b[i] + 1, b[i] - 1, 0x7f, 0xff} {
			lie := append([]byte{}, b...)
			lie[i] = v
			feed(t, tcpPacket(1, lie))
			feed(t, tcpPacket(1, lie[:i+1]), tcpPacket(uint32(i+2), lie[i+1:]))
		}
	}
}

func TestServerNames(t *testing.T) {
	long := strings.Repeat("abcdefghi.", 25) + "com" // 253 bytes
	for name, wanted := range map[string]string{
		"Example.COM":               "example.com",
		"example.com.":              "example.com",
		"_srv.x-1.example":          "_srv.x-1.example",
		"xn--bcher-kva.example":     "xn--bcher-kva.example",
		"localhost":                 "localhost",
		long:                        long,
		long + "m":                  "",
		strings.Repeat("a", 63):     strings.Repeat("a", 63),
		strings.Repeat("a", 64):     "",
		"":                          "",
		".":                         "",
		".example.com":              "",
		"example..com":              "",
		"192.0.2.1":                 "",
		"2001:db8::1":               "",
		"evil\x1b[31m.example":      "",
		"nul\x00.example":           "",
		"line\n.example":            "",
		"b\xc3\xbccher.example":     "",
		"with space.example":        "",
		"a/b.example":               "",
		strings.Repeat("\x07", 255): "",
	} {
		f := feed(t, tcpPacket(1, records(simpleHello(name, 0), 1<<14)))
		want(t, f, flow.ProtocolTLS, wanted)
		if got := hostName([]byte(name)); got != wanted {
			t.Errorf("name %q: %q, want %q", name, got, wanted)
		}
	}
}

func TestHiddenNames(t *testing.T) {
	ech := func(kind byte) []byte {
		return extension(extEncryptedHello, append([]byte{kind}, make([]byte, 200)...))
	}
	for name, test := range map[string]struct {
		extensions [][]byte
		want       string
	}{
		"GREASE and a name":     {[][]byte{extensionName("www.example.org"), ech(0)}, "www.example.org"},
		"public name":           {[][]byte{extensionName("Cloudflare-ECH.com"), ech(0)}, flow.HiddenName},
		"public name, reversed": {[][]byte{ech(0), extensionName("cloudflare-ech.com")}, flow.HiddenName},
		"public name as such":   {[][]byte{extensionName("cloudflare-ech.com")}, "cloudflare-ech.com"},
		"no name":               {[][]byte{ech(0)}, flow.HiddenName},
		"inner hello":           {[][]byte{ech(1)}, ""},
		"ESNI":                  {[][]byte{extension(extEncryptedName, make([]byte, 100))}, flow.HiddenName},
		"neither":               {[][]byte{extension(21, nil)}, ""},
	} {
		b := records(helloSpec{extensions: test.extensions}.message(), 1<<14)
		want(t, feed(t, tcpPacket(1, b)), flow.ProtocolTLS, test.want)
		half := len(b) - 30
		f := feed(t, tcpPacket(1, b[:half]), tcpPacket(1+uint32(half), b[half:]))
		if got := f.Evidence().Name; got != test.want {
			t.Errorf("%s, in two segments: %q, want %q", name, got, test.want)
		}
	}
}

func TestALPN(t *testing.T) {
	for _, test := range []struct {
		offered  []string
		want     string
		protocol flow.Protocol
	}{
		{[]string{"\x0a\x0a", "h2"}, "h2", flow.ProtocolTLS},
		{[]string{"dot"}, "dot", flow.ProtocolDNSOverTLS},
		{[]string{"evil\x1b[0m"}, "", flow.ProtocolTLS},
		{[]string{"acme-tls/1"}, "acme-tls/1", flow.ProtocolTLS},
	} {
		f := feed(t, tcpPacket(1, records(helloSpec{extensions: [][]byte{extensionName("a.example"), extensionALPN(test.offered...)}}.message(), 1<<14)))
		want(t, f, test.protocol, "a.example")
		if got := f.Evidence().ALPN; got != test.want {
			t.Errorf("ALPN %q of %q, want %q", got, test.offered, test.want)
		}
	}
}

func TestTLSWithoutClientHello(t *testing.T) {
	server := records(append([]byte{messageServerHello}, vec(3, make([]byte, 80))...), 1<<14)
	data := append([]byte{recordData, 3, 3}, vec(2, make([]byte, 400))...)
	onPort853 := tcpPacket(1, data)
	onPort853.DstPort = dotPort
	for name, test := range map[string]struct {
		packet *Packet
		want   flow.Protocol
	}{
		"server hello":       {fromServer(tcpPacket(1, server)), flow.ProtocolTLS},
		"data":               {tcpPacket(1, data), flow.ProtocolTLS},
		"data, cut":          {tcpPacket(1, data[:100]), flow.ProtocolTLS},
		"data, two records":  {tcpPacket(1, append(data, data...)), flow.ProtocolTLS},
		"data of TLS 1.0":    {tcpPacket(1, append([]byte{recordData, 3, 1}, vec(2, make([]byte, 32))...)), flow.ProtocolTLS},
		"change cipher spec": {tcpPacket(1, append([]byte{recordChangeCipher, 3, 3, 0, 1, 1}, data...)), flow.ProtocolTLS},
		"alert":              {tcpPacket(1, []byte{recordAlert, 3, 3, 0, 2, 2, 40}), flow.ProtocolTLS},
		"port 853":           {onPort853, flow.ProtocolDNSOverTLS},
		"data too short":     {tcpPacket(1, []byte{recordData, 3, 3, 0, 3, 1, 2, 3}), flow.ProtocolUnknown},
		"record too long":    {tcpPacket(1, []byte{recordData, 3, 3, 0x60, 0, 1, 2, 3}), flow.ProtocolUnknown},
		"not a record after": {tcpPacket(1, append(append([]byte{}, data...), "GET / "...)), flow.ProtocolUnknown},
		"version":            {tcpPacket(1, append([]byte{recordData, 3, 9}, vec(2, make([]byte, 400))...)), flow.ProtocolUnknown},
	} {
		if f := feed(t, test.packet); f.Evidence() != (flow.Evidence{Protocol: test.want}) {
			t.Errorf("%s: %+v, want %v", name, f.Evidence(), test.want)
		}
	}
	// The server's packet may overtake the client's.
	f := feed(t, fromServer(tcpPacket(1, server)), tcpPacket(1, records(simpleHello("a.example", 0), 1<<14)))
	want(t, f, flow.ProtocolTLS, "a.example")
}

func TestDTLS(t *testing.T) {
	message := helloSpec{version: 0xfefd, cookie: []byte("cookie"), extensions: [][]byte{extensionName("vpn.example.org"), extension(21, make([]byte, 300))}}.message()
	body := message[handshakeHeader:]
	fragment := func(from, to int) []byte {
		b := append([]byte{messageClientHello}, message[1:4]...)
		b = append(b, 0, 0)
		b = append(b, 0, byte(from>>8), byte(from))
		b = append(b, vec(3, body[from:to])...)
		return append([]byte{recordHandshake, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0}, vec(2, b)...)
	}
	n := len(body)
	for name, packets := range map[string][]*Packet{
		"whole":         {udpPacket(fragment(0, n))},
		"two datagrams": {udpPacket(fragment(0, 200)), udpPacket(fragment(200, n))},
		"one datagram":  {udpPacket(append(fragment(0, 50), fragment(50, n)...))},
		"other order":   {udpPacket(fragment(200, n)), udpPacket(fragment(0, 200))},
		"repeated":      {udpPacket(fragment(0, 100)), udpPacket(fragment(0, 100)), udpPacket(fragment(100, n))},
	} {
		f := feed(t, packets...)
		if e := f.Evidence(); e.Protocol != flow.ProtocolDTLS || e.Name != "vpn.example.org" || !strings.HasPrefix(e.JA4, "dd2d0102") {
			t.Errorf("%s: %+v", name, e)
		}
	}
	data := append([]byte{recordData, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0}, vec(2, make([]byte, 50))...)
	want(t, feed(t, udpPacket(data)), flow.ProtocolDTLS, "")
	want(t, feed(t, udpPacket(data[:len(data)-1])), flow.ProtocolUnknown, "")
}
