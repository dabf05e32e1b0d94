// SPDX-License-Identifier: Apache-2.0

package addressbook

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/dpclass/dpclass/flow"
)

var start = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// service takes the last two labels of a name for its service, and lists only .com.
func service(name string) string {
	labels := strings.Split(name, ".")
	if len(labels) < 2 || labels[len(labels)-1] != "com" {
		return ""
	}
	return labels[len(labels)-2]
}

// answer packs a DNS answer: an alias if there is one, then addresses.
func answer(t testing.TB, name, alias string, ttl uint32, addrs ...string) []byte {
	t.Helper()
	question := dnsmessage.MustNewName(name + ".")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: question, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	owner := question
	if alias != "" {
		owner = dnsmessage.MustNewName(alias + ".")
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: question, Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   &dnsmessage.CNAMEResource{CNAME: owner},
		})
	}
	for _, text := range addrs {
		addr := netip.MustParseAddr(text)
		var body dnsmessage.ResourceBody
		if addr.Is4() {
			body = &dnsmessage.AResource{A: addr.As4()}
		} else {
			body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body,
		})
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func expect(t *testing.T, b *Book, addr string, now time.Time, name string, source flow.NameSource) {
	t.Helper()
	got, from := b.Lookup(netip.MustParseAddrPort(addr), flow.TCP, now)
	if got != name || from != source {
		t.Errorf("%s at +%v is %q by %q, want %q by %q", addr, now.Sub(start), got, from, name, source)
	}
}

func TestAnswer(t *testing.T) {
	b := New(service)
	for _, message := range [][]byte{
		answer(t, "Video.Example.com", "edge.cdn.net", 300, "192.0.2.1", "2001:db8::1"),
		answer(t, "zero.org", "", 0, "192.0.2.2"),
		answer(t, "long.org", "", 1<<30, "192.0.2.3"),
	} {
		if _, err := b.Answer(message, start); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, b, "192.0.2.1:443", start, "video.example.com", flow.NameDNS)
	expect(t, b, "[2001:db8::1]:443", start.Add(299*time.Second), "video.example.com", flow.NameDNS)
	expect(t, b, "[2001:db8::1]:443", start.Add(301*time.Second), "", flow.NameNone)
	expect(t, b, "192.0.2.2:443", start.Add(59*time.Second), "zero.org", flow.NameDNS)
	expect(t, b, "192.0.2.2:443", start.Add(61*time.Second), "", flow.NameNone)
	expect(t, b, "192.0.2.3:443", start.Add(23*time.Hour), "long.org", flow.NameDNS)
	expect(t, b, "192.0.2.3:443", start.Add(25*time.Hour), "", flow.NameNone)
}

func TestDisagreement(t *testing.T) {
	b := New(service)
	put := func(name, addr string) {
		if _, err := b.Answer(answer(t, name, "", 600, addr), start); err != nil {
			t.Fatal(err)
		}
	}
	put("www.one.com", "192.0.2.1")
	put("img.one.com", "192.0.2.1")
	expect(t, b, "192.0.2.1:443", start, "img.one.com", flow.NameDNS)
	put("www.two.com", "192.0.2.1")
	expect(t, b, "192.0.2.1:443", start, "", flow.NameNone)
	// Names that are not listed cannot be compared.
	put("a.example.org", "192.0.2.2")
	put("b.example.org", "192.0.2.2")
	expect(t, b, "192.0.2.2:443", start, "", flow.NameNone)
}

func TestImplausibleAddresses(t *testing.T) {
	b := New(service)
	for _, addr := range []string{"10.0.0.1", "192.168.1.1", "fd00::1", "fe80::1", "127.0.0.1", "0.0.0.0", "::1", "224.0.0.1"} {
		if n, err := b.Answer(answer(t, "www.bank.com", "", 600, addr), start); n != 0 || err == nil {
			t.Errorf("a listed service was accepted at %s", addr)
		}
	}
	if _, err := b.Answer(answer(t, "git.corp.example.org", "", 600, "10.0.0.1"), start); err != nil {
		t.Errorf("a name of one's own network was refused: %v", err)
	}
	expect(t, b, "10.0.0.1:443", start, "git.corp.example.org", flow.NameDNS)
}

func TestServer(t *testing.T) {
	b := New(service)
	addr := netip.MustParseAddrPort("192.0.2.9:443")
	b.Saw(addr, flow.TCP, "www.one.com", start)
	b.Saw(addr, flow.TCP, flow.HiddenName, start)
	expect(t, b, "192.0.2.9:443", start.Add(9*time.Minute), "www.one.com", flow.NameServer)
	expect(t, b, "192.0.2.9:444", start, "", flow.NameNone)
	if name, _ := b.Lookup(addr, flow.UDP, start); name != "" {
		t.Errorf("UDP got the name %q of TCP", name)
	}
	expect(t, b, "192.0.2.9:443", start.Add(11*time.Minute), "", flow.NameNone)
}

func TestBadMessages(t *testing.T) {
	b := New(service)
	good := answer(t, "www.one.com", "cdn.net", 60, "192.0.2.1", "192.0.2.2")
	for n := range good {
		_, _ = b.Answer(good[:n], start) // must neither panic nor loop
	}
	query := append([]byte(nil), good...)
	query[2] &^= 0x80
	// A compression pointer that points to itself.
	loop := append([]byte(nil), good[:12]...)
	loop = append(loop, 0xc0, 12, 0, 1, 0, 1)
	odd := answer(t, "a b\x1b[31m.org", "", 60, "192.0.2.7")
	for what, message := range map[string][]byte{"query": query, "loop": loop, "control characters": odd, "empty": nil} {
		if n, err := b.Answer(message, start); err == nil || n != 0 {
			t.Errorf("%s: %d pairs, error %v", what, n, err)
		}
	}
}

func TestBounds(t *testing.T) {
	b := New(service)
	for n := range MaxPairs + 1000 {
		addr := netip.AddrFrom4([4]byte{192, byte(n >> 16), byte(n >> 8), byte(n)})
		b.Saw(netip.AddrPortFrom(addr, 443), flow.TCP, fmt.Sprintf("host%d.example.org", n), start)
	}
	if b.servers.pairs != MaxPairs || len(b.servers.at) != MaxPairs || b.servers.recent.Len() != MaxPairs {
		t.Errorf("%d pairs, %d keys, %d entries, want %d", b.servers.pairs, len(b.servers.at), b.servers.recent.Len(), MaxPairs)
	}
	expect(t, b, "192.0.0.0:443", start, "", flow.NameNone)
	one := netip.MustParseAddrPort("198.51.100.1:443")
	for n := range 1000 {
		b.Saw(one, flow.TCP, fmt.Sprintf("host%d.one.com", n), start)
	}
	if n := len(b.servers.get(server{one, flow.TCP}, start)); n != maxNames {
		t.Errorf("%d names of one server, want %d", n, maxNames)
	}
	if b.servers.pairs > MaxPairs {
		t.Errorf("%d pairs", b.servers.pairs)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(answer(f, "www.one.com", "cdn.net", 60, "192.0.2.1", "2001:db8::2"))
	f.Add(answer(f, "www.example.org", "", 0, "192.0.2.1"))
	f.Fuzz(func(t *testing.T, message []byte) {
		b := New(service)
		n, err := b.Answer(message, start)
		if b.dns.pairs > n || n > maxAnswers || n > 0 && err != nil && b.dns.pairs == 0 {
			t.Errorf("%d pairs, %d kept, error %v", n, b.dns.pairs, err)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	book := New(service)
	message := answer(b, "video.example.com", "", 300, "192.0.2.1")
	if _, err := book.Answer(message, start); err != nil {
		b.Fatal(err)
	}
	known, other := netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("192.0.2.99:443")
	b.ReportAllocs()
	for b.Loop() {
		book.Lookup(known, flow.TCP, start)
		book.Lookup(other, flow.TCP, start)
	}
}
