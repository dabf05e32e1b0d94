// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// hello is what a TLS flow to a server says.
func hello(name string) flow.Evidence {
	return flow.Evidence{
		Protocol: flow.ProtocolTLS, Name: name, NameSource: flow.NameTLS, ALPN: "h2", JA4: "t13d1516h2_8daaf6152771_02713d6af862",
	}
}

// says stores evidence on a flow, and no verdict.
func (k *kernel) says(key flow.Key, e flow.Evidence) {
	k.t.Helper()
	stale, err := k.table.Apply([]flow.Decision{{ID: k.id(key), Evidence: e}})
	if err != nil || stale != 0 {
		k.t.Fatalf("evidence on %q: stale %d, %v", key, stale, err)
	}
}

// evidenceOf returns the evidence of a record.
func evidenceOf(r *flow.Record) flow.Evidence {
	e := flow.Evidence{Name: r.Name, ALPN: r.ALPN, JA4: r.JA4}
	e.Protocol, _ = flow.ParseProtocol(r.Protocol)
	for source := range flow.NameServer + 1 {
		if source.String() == r.NameSource {
			e.NameSource = source
		}
	}
	return e
}

// TestEvidence: it is stored without a verdict, stays through verdicts and promotion, is in the record of the end, and
// goes when the key is used again.
func TestEvidence(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	other := k.otherProcess()
	for n, c := range []conn{tcp(1), tcp6(1)} {
		k.pass(progXDP, c.sent(syn, 0), c.sent(ack|psh, 10))
		first := k.id(c.key())
		want := hello(strings.Repeat("a.", 124) + "name") // 252 bytes
		check := func(what string, r flow.Record) {
			t.Helper()
			if got := evidenceOf(&r); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		k.says(c.key(), want)
		r := k.flow(c.key())
		check("stored", r)
		if r.Category != "" || r.Source != "" || r.Final {
			t.Errorf("evidence made a verdict: %+v", r)
		}
		k.says(c.key(), flow.Evidence{})
		check("none afterwards", k.flow(c.key()))
		k.decide(first, "voip", 1, true)
		check("decided", k.flow(c.key()))
		k.operator(c.key(), "chat", "")
		check("by an operator", k.flow(c.key()))
		if r, err := other.Lookup(c.key()); err != nil {
			t.Error(err)
		} else {
			check("another process", r)
		}
		want.Protocol, want.Name, want.NameSource = flow.ProtocolQUIC, "example.org", flow.NameDNS
		k.says(c.key(), want)
		check("other evidence", k.flow(c.key()))
		if stale, err := k.table.Apply([]flow.Decision{{ID: flow.ID{Key: c.key(), Generation: first.Generation + 9}, Evidence: hello("x.y")}}); stale != 1 || err != nil {
			t.Errorf("another generation's evidence: stale %d, %v", stale, err)
		}
		check("another generation's", k.flow(c.key()))
		all := k.flows()
		check("listed", all[slices.IndexFunc(all, func(r flow.Record) bool { return r.Key() == c.key() })])

		k.pass(progXDP, c.sent(rst, 0), c.sent(syn, 0))
		if r := k.flow(c.key()); evidenceOf(&r) != (flow.Evidence{}) {
			t.Errorf("the flow that began again has evidence: %+v", evidenceOf(&r))
		}
		if ended := k.sweep(); len(ended) != 1 {
			t.Errorf("connection %d: %d ends", n, len(ended))
		} else {
			check("ended", ended[0])
		}
	}
}

// otherProcess returns the table as a process with nothing in its memory has it.
func (k *kernel) otherProcess() *Table {
	return &Table{
		maps: &k.maps, labels: &k.labels, tick: k.info.TickNs, timeouts: k.info.Timeouts,
		inbox: inbox{maps: &k.maps}, evidence: newEvidenceTable(k.maps.Evidence),
	}
}

// TestEvidenceOfAnyForm: what is hidden, too long, or not text.
func TestEvidenceOfAnyForm(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", flow.MaxName)
	for _, test := range []struct{ in, want flow.Evidence }{
		{in: flow.Evidence{Name: flow.HiddenName, NameSource: flow.NameTLS}},
		{in: flow.Evidence{Name: long, NameSource: flow.NameHTTP}},
		{in: flow.Evidence{Name: "a\x01\xff.b", NameSource: flow.NameHTTP}},
		{in: flow.Evidence{Name: long + "x", NameSource: flow.NameHTTP, JA4: "j"}, want: flow.Evidence{JA4: "j"}},
		{in: flow.Evidence{ALPN: strings.Repeat("p", 255)}, want: flow.Evidence{ALPN: strings.Repeat("p", 31)}},
	} {
		want := test.want
		if want == (flow.Evidence{}) {
			want = test.in
		}
		raw := encodeEvidence(&test.in)
		if got := decodeEvidence(&raw); got != want {
			t.Errorf("%.40q: %+v, want %+v", test.in.Name, got, want)
		}
		if matched := raw.Match.PrefixLen > 0; matched != (want.Name != "" && want.Name != flow.HiddenName) {
			t.Errorf("%.40q: rules match it: %v", want.Name, matched)
		}
	}
}

// TestManyNames: more names than there is room for. The newest are there, and a name that was evicted is stored again
// with the next decision that has it.
func TestManyNames(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := udp(1)
	k.pass(progXDP, c.sent(0, 10))
	id := k.id(c.key())
	const more = 3 * int(bpfLimitMaxEvidence)
	decisions := make([]flow.Decision, 0, more)
	for n := range more {
		decisions = append(decisions, flow.Decision{ID: id, Evidence: hello("host-" + strconv.Itoa(n) + ".example")})
	}
	for part := range slices.Chunk(decisions, 1000) {
		if stale, err := k.table.Apply(part); err != nil || stale != 0 {
			t.Fatalf("stale %d, %v", stale, err)
		}
	}
	inKernel := func() string {
		r, err := k.otherProcess().Lookup(c.key())
		if err != nil {
			t.Fatal(err)
		}
		return r.Name
	}
	if got, want := inKernel(), decisions[more-1].Evidence.Name; got != want {
		t.Errorf("the newest name is %q, want %q", got, want)
	}
	var entries int
	var key uint64
	var value bpfFlowEvidence
	for all := k.maps.Evidence.Iterate(); all.Next(&key, &value); {
		entries++
	}
	if entries > int(bpfLimitMaxEvidence) || entries < int(bpfLimitMaxEvidence)/2 {
		t.Errorf("%d entries", entries)
	}
	if n := len(k.table.evidence.now) + len(k.table.evidence.old); n > 2*int(bpfLimitMaxEvidence) {
		t.Errorf("user space remembers %d names", n)
	}
	// Evict the entry of the flow, as other flows would.
	f, _ := k.entry(c.key())
	if err := k.maps.Evidence.Delete(f.Evidence); err != nil {
		t.Fatal(err)
	}
	if got := inKernel(); got != "" {
		t.Fatalf("name %q after its eviction", got)
	}
	if _, err := k.table.Apply(decisions[more-1:]); err != nil {
		t.Fatal(err)
	}
	if got, want := inKernel(), decisions[more-1].Evidence.Name; got != want {
		t.Errorf("the evicted name is %q after the next decision, want %q", got, want)
	}
}

func TestKept(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: 3}, ethernet)
	var want []flow.Sample
	c := tcp6(1)
	k.pass(progXDP, c.sent(syn, 0), c.sent(ack|psh, 10), c.sent(ack|psh, 1800))
	k.pass(progOut, c.answer(ack|psh, 300))
	for s := k.sample(); s != nil; s = k.sample() {
		kept := *s
		kept.Packet = bytes.Clone(s.Packet)
		want = append(want, kept)
	}
	if len(want) != 3 || len(want[1].Packet) != 1500 {
		t.Fatalf("%d samples", len(want))
	}
	if err := k.table.Keep(want); err != nil {
		t.Fatal(err)
	}
	got, err := k.otherProcess().Kept(want[0].ID.Generation)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("kept %v, %v; want %v", got, err, want)
	}
	if got, err := k.table.Kept(want[0].ID.Generation + 1); err != nil || len(got) != 0 {
		t.Errorf("of another flow: %v, %v", got, err)
	}
	// Another 5,000 samples evict them.
	for n := range 5 {
		others := make([]flow.Sample, 1000)
		for m := range others {
			others[m] = want[0]
			others[m].ID.Generation = uint32(1000 + n*1000 + m)
		}
		if err := k.table.Keep(others); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := k.table.Kept(want[0].ID.Generation); err != nil || len(got) != 0 {
		t.Errorf("%d samples of an old flow, %v", len(got), err)
	}
}

// TestBpftool: bpftool prints names of labels, protocols and sources, and server names as text.
func TestBpftool(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("bpftool")
	if err != nil {
		t.Skip("SKIPPED: there is no bpftool")
	}
	k := newKernel(t, Config{}, ethernet)
	dir := bpffs.Path
	c := tcp(1)
	k.pass(progXDP, c.sent(syn, 0))
	evidence := hello("www.example.com")
	verdict := flow.Verdict{Label: "vpn-tunnel", Confidence: 1, Source: flow.SourceName, Final: true}
	if _, err := k.table.Apply([]flow.Decision{{ID: k.id(c.key()), Evidence: evidence, Verdicts: flow.Verdicts{flow.Category: verdict}}}); err != nil {
		t.Fatal(err)
	}
	dump := func(name string) string {
		pin := filepath.Join(dir, fmt.Sprintf("dpclass-test-%s-%d", name, time.Now().UnixNano()))
		m := *pinnedMaps(&k.maps)[name]
		if err := m.Pin(pin); err != nil {
			t.Fatal(err)
		}
		defer m.Unpin()
		out, err := exec.Command(tool, "map", "dump", "pinned", pin).Output()
		if err != nil {
			t.Fatalf("bpftool: %v", err)
		}
		if !json.Valid(out) {
			t.Errorf("map %q: not JSON:\n%s", name, out)
		}
		return string(out)
	}
	for name, want := range map[string][]string{
		"flows":    {`"label": "vpn_tunnel"`, `"protocol": "protocol_tls"`, `"source": "source_name"`},
		"evidence": {`"name": "www.example.com"`, `"ja4": "` + evidence.JA4 + `"`, `"name_source": "name_tls"`, `"alpn": "h2"`},
	} {
		out := dump(name)
		for _, part := range want {
			if !strings.Contains(out, part) {
				t.Errorf("map %q: no %s in\n%s", name, part, out)
			}
		}
	}
}

// dnsHeader is how many bytes come before the payload of dnsPacket.
func dnsHeader(c conn) int {
	if c.client.Addr().Is6() {
		return 14 + 40 + 8
	}
	return 14 + 20 + 8
}

// dnsPacket is a UDP packet with a payload that begins as a DNS message does.
func dnsPacket(c conn, flags byte, payload int) []byte {
	frame := c.sent(0, payload)
	frame[dnsHeader(c)+2] = flags
	return frame
}

// TestDNSAnswers: answers are copied, questions and other packets are not, and samples are as they were.
func TestDNSAnswers(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{DNS: true}, ethernet)
	answers := make(chan flow.DNSAnswer, 100)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	read := func() {
		done <- k.DNS().Answers(ctx, func(a *flow.DNSAnswer) {
			copied := *a
			copied.Message = bytes.Clone(a.Message)
			answers <- copied
		})
	}
	go read()
	for _, program := range programs {
		for _, c := range []conn{tcp(1), tcp6(1), {client: tcp6(1).server, server: tcp6(1).client}} {
			c.proto = packettest.UDP
			server := conn{c.proto, withPort(c.server, 53), c.client} // the sender of the answer
			for _, test := range []struct{ payload, captured int }{{12, 12}, {100, 100}, {1232, 1232}, {1400, 1232}} {
				frame := dnsPacket(server, 0x81, test.payload)
				k.pass(program, frame)
				select {
				case a := <-answers:
					if a.Client != c.client.Addr() || a.Server != c.server.Addr() || a.Length != test.payload || a.Time == 0 ||
						!bytes.Equal(a.Message, frame[dnsHeader(c):][:test.captured]) {
						t.Errorf("%s: client %v, server %v, %d of %d bytes", program, a.Client, a.Server, len(a.Message), a.Length)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: no answer of %d bytes", program, test.payload)
				}
			}
			question := conn{c.proto, c.client, withPort(c.server, 53)}
			mdns := conn{c.proto, withPort(c.server, 5353), c.client}
			overTCP := conn{packettest.TCP, withPort(c.server, 53), c.client}
			k.pass(program, dnsPacket(server, 0x01, 100), dnsPacket(question, 0x81, 100), dnsPacket(mdns, 0x81, 100),
				overTCP.sent(ack|psh, 100), server.sent(0, 11))
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(answers); n != 0 {
		t.Errorf("%d packets that are not answers were copied", n)
	}
	if r := k.flow((conn{packettest.UDP, withPort(tcp(1).server, 53), tcp(1).client}).key()); r.Samples != 0 {
		t.Errorf("%d samples of DNS", r.Samples)
	}
	for range 200 {
		k.pass(progXDP, dnsPacket(conn{packettest.UDP, withPort(tcp(1).server, 53), tcp(1).client}, 0x81, 1232))
	}
	if n := k.counters()["dns_full"]; n == 0 || n >= 200 {
		t.Errorf("dns_full is %d", n)
	}

	off := newKernel(t, Config{}, ethernet)
	off.pass(progXDP, dnsPacket(conn{packettest.UDP, withPort(tcp(1).server, 53), tcp(1).client}, 0x81, 100))
	ctx, stop = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer stop()
	if err := off.DNS().Answers(ctx, func(*flow.DNSAnswer) { t.Error("an answer was copied that nobody asked for") }); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// FuzzDecodeAnswer: whatever is in the ring.
func FuzzDecodeAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, answerHeader))
	f.Add(make([]byte, answerHeader+1232))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var a flow.DNSAnswer
		if decodeAnswer(raw, &a) && len(a.Message) > len(raw)-answerHeader {
			t.Fatalf("%d bytes out of %d", len(a.Message), len(raw))
		}
	})
}
