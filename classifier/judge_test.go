// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	stdnet "net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/onnxtest"
)

// hello returns the bytes that a TLS client sends first. They fit into a segment.
func hello(t testing.TB, name string) []byte {
	t.Helper()
	client, server := stdnet.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, &tls.Config{ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
	}()
	head := make([]byte, 5)
	if err := server.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := readFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := readFull(server, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

func readFull(c stdnet.Conn, to []byte) (n int, err error) {
	for n < len(to) && err == nil {
		var more int
		more, err = c.Read(to[n:])
		n += more
	}
	return n, err
}

// tcpFlow is a TCP flow of a test from client to server.
type tcpFlow struct {
	id      flow.ID
	client  netip.AddrPort
	server  netip.AddrPort
	seq     [2]uint32
	samples int
}

func newTCPFlow(n int, server string) *tcpFlow {
	f := &tcpFlow{client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)}), 40000), server: netip.MustParseAddrPort(server)}
	f.id.Key, _ = flow.MakeKey(flow.TCP, f.client, f.server, 0)
	f.id.Generation = 1
	return f
}

// sample returns the flow's next payload packet, as the kernel delivers it.
func (f *tcpFlow) sample(fromClient bool, payload []byte) *flow.Sample {
	src, dst, side := f.client, f.server, 0
	if !fromClient {
		src, dst, side = dst, src, 1
	}
	packet := make([]byte, 40, 40+len(payload))
	packet[0], packet[8], packet[9], packet[32], packet[33] = 0x45, 64, 6, 0x50, 0x18
	binary.BigEndian.PutUint16(packet[2:], uint16(40+len(payload)))
	binary.BigEndian.PutUint16(packet[20:], src.Port())
	binary.BigEndian.PutUint16(packet[22:], dst.Port())
	binary.BigEndian.PutUint32(packet[24:], f.seq[side])
	f.seq[side] += uint32(len(payload))
	packet = append(packet, payload...)
	f.samples++
	return &flow.Sample{
		ID: f.id, FromA: src == f.id.Key.A, Index: f.samples - 1, Time: int64(f.samples), Length: len(packet), Packet: packet,
	}
}

// follow runs samples of one flow through the classifier, one after the other.
func follow(t *testing.T, c *Classifier, samples ...*flow.Sample) (last flow.Decision, decided bool) {
	t.Helper()
	live := run(t, c)
	for _, s := range samples {
		live.submit(t, s)
		live.settle(t)
	}
	live.stop(t)
	return live.decision(samples[0].ID)
}

const (
	streamingName = "www.netflix.com" // in the catalogue: strong
	weakName      = "www.google.com"  // in the catalogue: weak
)

// A hello that waits while the models are swapped still names its flow: it does not come
// again.
func TestSwapKeepsHello(t *testing.T) {
	c := open(t, Options{Workers: 1})
	f := newTCPFlow(1, "192.0.2.1:443")
	if !c.Submit(f.sample(true, hello(t, streamingName))) {
		t.Fatal("shed")
	}
	if err := c.Swap(c.Models()); err != nil {
		t.Fatal(err)
	}
	live := run(t, c)
	live.settle(t)
	live.stop(t)
	if d, _ := live.decision(f.id); d.Verdicts[flow.App].Source != flow.SourceName || d.Evidence.Name != streamingName {
		t.Errorf("%+v", d)
	}
}

func TestNameDecides(t *testing.T) {
	c := open(t, Options{Workers: 1})
	f := newTCPFlow(1, "192.0.2.1:443")
	d, _ := follow(t, c, f.sample(true, hello(t, streamingName)))
	category, app := d.Verdicts[flow.Category], d.Verdicts[flow.App]
	if category.Label != "streaming" || category.Source != flow.SourceName || !category.Final || !d.Settled ||
		app.Label != "netflix" || app.Source != flow.SourceName || d.Samples != 1 {
		t.Errorf("%+v, want it decided by its name at the first packet", d)
	}
	if e := d.Evidence; e.Name != streamingName || e.NameSource != flow.NameTLS || e.Protocol != flow.ProtocolTLS || e.JA4 == "" {
		t.Errorf("evidence %+v", e)
	}
	if s := c.Stats(); s.Skipped != 1 {
		t.Errorf("%d samples needed no network, want 1", s.Skipped)
	}
}

func TestWeakNameDecidesNothing(t *testing.T) {
	c := open(t, Options{Workers: 1})
	d, _ := follow(t, c, newTCPFlow(1, "192.0.2.1:443").sample(true, hello(t, weakName)))
	if d.Verdicts[flow.Category].Source != flow.SourceModel || d.Evidence.Name != weakName {
		t.Errorf("%+v, want the model's verdict, and the name shown", d)
	}
}

func TestProtocolDecides(t *testing.T) {
	c := open(t, Options{Workers: 1})
	d, _ := follow(t, c, newTCPFlow(1, "192.0.2.1:2222").sample(false, []byte("SSH-2.0-OpenSSH_9.2p1\r\n")))
	category, app := d.Verdicts[flow.Category], d.Verdicts[flow.App]
	if category.Label != "remote" || category.Source != flow.SourceProtocol || !d.Settled || app != (flow.Verdict{Source: flow.SourceProtocol, Final: true}) {
		t.Errorf("%+v, want remote by its protocol, and no application", d)
	}
}

// A protocol that decides later takes back the application that the network guessed.
func TestProtocolDecidesLater(t *testing.T) {
	c := open(t, Options{Workers: 1})
	f := newTCPFlow(1, "192.0.2.1:2222")
	if d, _ := follow(t, c, f.sample(true, []byte{0xf1, 0x9e, 0x55, 0x03, 0x77})); d.Verdicts[flow.App].Label == "" || d.Verdicts[flow.App].Final {
		t.Fatalf("%+v, want a provisional application", d)
	}
	d, _ := follow(t, c, f.sample(false, []byte("SSH-2.0-OpenSSH_9.2p1\r\n")))
	if v := d.Verdicts[flow.App]; v.Label != "" || v.Source == flow.SourceNone || !v.Final || !d.Settled {
		t.Errorf("%+v, want no application, finally", d)
	}
}

// A protocol of one application decides it, and so does one whose category is a label of
// applications too.
func TestProtocolDecidesTheApp(t *testing.T) {
	c := open(t, Options{Workers: 1})
	for n, test := range []struct{ payload, protocol, category, app string }{
		{"\x17\xf1\x04\x00\x04abcd", "mmtls", "chat", "wechat"},
		{"POST /mmtls/00003aee HTTP/1.1\r\nHost: 192.0.2.9\r\n\r\n", "mmtls", "chat", "wechat"},
		{"WA\x06\x03\x00\x00\x04abcd", "whatsapp", "chat", "whatsapp"},
		{"220 mx.example.org ESMTP Postfix\r\n", "smtp", "email", "email"},
	} {
		f := newTCPFlow(n, fmt.Sprintf("192.0.2.%d:9443", n+1))
		d, _ := follow(t, c, f.sample(test.protocol != "smtp", []byte(test.payload)))
		category, app := d.Verdicts[flow.Category], d.Verdicts[flow.App]
		if d.Evidence.Protocol.String() != test.protocol || category.Label != test.category || category.Source != flow.SourceProtocol ||
			app.Label != test.app || app.Source != flow.SourceProtocol {
			t.Errorf("%q: %+v, want %+v", test.payload, d, test)
		}
	}
	// The flow's own name comes first.
	f := newTCPFlow(9, "192.0.2.99:80")
	d, _ := follow(t, c, f.sample(true, []byte("POST /mmtls/00003aee HTTP/1.1\r\nHost: "+streamingName+"\r\n\r\n")))
	if v := d.Verdicts; v[flow.Category].Label != "streaming" || v[flow.App].Label != "netflix" || v[flow.App].Source != flow.SourceName {
		t.Errorf("%+v, want it decided by its name", d)
	}
}

// A hello in two segments is read before a verdict becomes final.
func TestNameInTheSecondSegment(t *testing.T) {
	c := open(t, Options{Workers: 1})
	f := newTCPFlow(1, "192.0.2.1:443")
	whole := hello(t, streamingName)
	first, second := f.sample(true, whole[:60]), f.sample(true, whole[60:])
	if d, _ := follow(t, c, first); d.Verdicts.Final() || d.Settled {
		t.Errorf("%+v is final before its name is known", d)
	}
	if d, _ := follow(t, c, second); d.Verdicts[flow.Category].Label != "streaming" || !d.Settled {
		t.Errorf("%+v, want it decided by its name", d)
	}
}

// Inside a VPN the name gives the category and the network the prefix.
func TestInner(t *testing.T) {
	c := open(t, Options{Workers: 1})
	f := newTCPFlow(1, "192.0.2.1:443")
	var samples []*flow.Sample
	for range 5 {
		s := f.sample(true, hello(t, streamingName))
		s.Inner = true
		samples = append(samples, s)
	}
	d, _ := follow(t, c, samples...)
	category := d.Verdicts[flow.Category]
	if category.Source != flow.SourceName || !category.Final || category.Label != "streaming" && category.Label != "vpn-streaming" {
		t.Errorf("%+v", d)
	}
	if c.Stats().Skipped == uint64(len(samples)) {
		t.Error("the network was not asked for the prefix")
	}
}

func answerFor(t *testing.T, name string, addr [4]byte) []byte {
	t.Helper()
	owner := dnsmessage.MustNewName(name + ".")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: owner, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.AResource{A: addr},
		}},
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestNameOfTheAddress(t *testing.T) {
	c := open(t, Options{Workers: 1})
	if err := c.Answer(answerFor(t, streamingName, [4]byte{192, 0, 2, 7}), 0); err != nil {
		t.Fatal(err)
	}
	noise := []byte{0xf1, 0x9e, 0x55, 0x03, 0x77, 0xe2, 0xb8, 0x41, 0xc3, 0x19, 0x88, 0x0d}
	d, _ := follow(t, c, newTCPFlow(1, "192.0.2.7:9000").sample(true, noise))
	if d.Evidence.NameSource != flow.NameDNS || d.Verdicts[flow.Category].Label != "streaming" {
		t.Errorf("%+v, want the name of the DNS answer to decide", d)
	}
	// The flow's protocol comes before a name that is only a conclusion.
	d, _ = follow(t, c, newTCPFlow(2, "192.0.2.7:22").sample(false, []byte("SSH-2.0-OpenSSH_9.2p1\r\n")))
	if v := d.Verdicts; v[flow.Category].Label != "remote" || v[flow.Category].Source != flow.SourceProtocol || v[flow.App].Label != "netflix" {
		t.Errorf("%+v, want remote by its protocol", d)
	}
	// A name of the flow's own comes first, whatever a DNS answer said.
	d, _ = follow(t, c, newTCPFlow(3, "192.0.2.7:443").sample(true, hello(t, "www.wikipedia.org")))
	if d.Evidence.Name != "www.wikipedia.org" || d.Evidence.NameSource != flow.NameTLS || d.Verdicts[flow.Category].Label != "web" {
		t.Errorf("%+v, want the flow's own name", d)
	}
	// And it names later flows to the same server that have none.
	follow(t, c, newTCPFlow(4, "192.0.2.8:443").sample(true, hello(t, streamingName)))
	d, _ = follow(t, c, newTCPFlow(5, "192.0.2.8:443").sample(true, noise))
	if d.Evidence.NameSource != flow.NameServer || d.Evidence.Name != streamingName {
		t.Errorf("%+v, want the name of the earlier flow", d)
	}
}

// The name of an earlier flow to the same server is not final while the flow may still show
// its own.
func TestOwnNameComesFirst(t *testing.T) {
	c := open(t, Options{Workers: 1})
	follow(t, c, newTCPFlow(1, "192.0.2.8:443").sample(true, hello(t, streamingName)))
	f := newTCPFlow(2, "192.0.2.8:443")
	whole := hello(t, "www.wikipedia.org")
	first, second := f.sample(true, whole[:60]), f.sample(true, whole[60:])
	d, _ := follow(t, c, first)
	if d.Evidence.NameSource != flow.NameServer || d.Verdicts[flow.Category].Final || d.Settled {
		t.Errorf("%+v, want the name of the earlier flow, not finally", d)
	}
	if d, _ = follow(t, c, second); d.Verdicts[flow.Category].Label != "web" || d.Evidence.Name != "www.wikipedia.org" || !d.Settled {
		t.Errorf("%+v, want the flow's own name", d)
	}
}

// The name that is looked up is the server's, whichever side sends.
func TestNameOfOneEnd(t *testing.T) {
	c := open(t, Options{Workers: 1})
	for name, addr := range map[string][4]byte{"laptop.example.net": {10, 2, 0, 1}, "server.example.org": {192, 0, 2, 20}} {
		if err := c.Answer(answerFor(t, name, addr), 0); err != nil {
			t.Fatal(err)
		}
	}
	f := newTCPFlow(1, "192.0.2.20:9000")
	for i := range 4 {
		d, _ := follow(t, c, f.sample(i%2 == 0, []byte{0xf1, 0x9e, 0x55, byte(i)}))
		if d.Evidence.Name != "" && d.Evidence.Name != "server.example.org" {
			t.Errorf("packet %d: %+v", i, d)
		}
	}
}

func TestEvidenceOption(t *testing.T) {
	for _, test := range []struct {
		use      Evidence
		source   flow.Source
		protocol flow.Protocol
		name     string
	}{
		{EvidenceAll, flow.SourceName, flow.ProtocolTLS, streamingName},
		{EvidenceProtocol, flow.SourceModel, flow.ProtocolTLS, ""},
		{EvidenceModel, flow.SourceModel, flow.ProtocolUnknown, ""},
	} {
		c := open(t, Options{Workers: 1, Evidence: test.use})
		d, _ := follow(t, c, newTCPFlow(1, "192.0.2.1:443").sample(true, hello(t, streamingName)))
		if d.Verdicts[flow.Category].Source != test.source || d.Evidence.Protocol != test.protocol || d.Evidence.Name != test.name {
			t.Errorf("%s: %+v", test.use, d)
		}
	}
	if _, err := New(Options{Library: library(t), Evidence: "guess"}); err == nil {
		t.Error("an unknown kind of evidence was taken")
	}
}

// A model with labels of its user's own decides: nobody else knows these labels.
func TestOwnLabels(t *testing.T) {
	own := loadNetwork(t, onnxtest.Fitting(), "call", "backup", "web")
	c := open(t, Options{Workers: 1, Models: []*model.Model{own}})
	d, _ := follow(t, c, newTCPFlow(1, "192.0.2.1:443").sample(true, hello(t, streamingName)))
	if d.Verdicts[flow.Category].Source != flow.SourceModel || d.Verdicts[flow.Category].Model != "test" || d.Evidence.Name != streamingName {
		t.Errorf("%+v, want the model's verdict, and the name shown", d)
	}
}

// Captures get the verdicts that live flows get.
func TestEvidenceLiveIsOffline(t *testing.T) {
	c := open(t, Options{Workers: 1})
	other := open(t, Options{})
	whole := hello(t, streamingName)
	long := hello(t, weakName)
	for n, payloads := range [][][]byte{
		{whole},
		{whole[:60], whole[60:]},
		{long[:100], long[100:], whole, whole, whole, whole, whole, whole, whole},
		{[]byte("SSH-2.0-x\r\n"), []byte("SSH-2.0-y\r\n")},
		{[]byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\n\r\n")},
		{{0xf1, 0x9e, 0x55}, {0x03, 0x77, 0xe2}, {0x99}},
	} {
		// Each to another server, because earlier flows name a server.
		f := newTCPFlow(n, fmt.Sprintf("192.0.2.%d:9443", n+1))
		var samples []*flow.Sample
		var vectors [][]byte
		reading := other.Reading()
		trail := reading.Flow()
		for i, payload := range payloads {
			s := f.sample(i%2 == 0 || n < 3, payload)
			samples = append(samples, s)
			vectors = append(vectors, Vector(s.Packet))
			trail.Add(s)
		}
		live, _ := follow(t, c, samples[:min(len(samples), c.Budget())]...)
		p, err := other.Probabilities(vectors[:min(len(vectors), other.Samples())])
		if err != nil {
			t.Fatal(err)
		}
		verdicts, evidence, samplesUsed := other.Decide(&p, trail)
		for task := range verdicts {
			a, b := verdicts[task], live.Verdicts[task]
			if a.Label != b.Label || a.Source != b.Source || a.Final != b.Final {
				t.Errorf("flow %d: %+v live, %+v in a capture", n, b, a)
			}
		}
		if evidence != live.Evidence || samplesUsed != live.Samples {
			t.Errorf("flow %d: evidence %+v after %d samples live, %+v after %d in a capture", n, live.Evidence, live.Samples, evidence, samplesUsed)
		}
	}
}
