// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// videoName is a name of the catalogue that decides: netflix, streaming.
const videoName = "www.netflix.com"

// testEvidence sees flows decided by their names and protocols.
func testEvidence(t *testing.T, s *suite) {
	s.needLibrary(t)
	r := routed(t, lab.Topology{})
	web, err := r.Server.NGINX(testContext(t), lab.Web{Port: 443, TLS: true, Name: videoName, Rate: "1m", Files: map[string]int64{"film": 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	s.attach(t, r.Router, "eth0", "--dns")
	t.Run("Name", func(t *testing.T) { testServerName(t, s, r, web) })
	t.Run("Protocol", func(t *testing.T) { testProtocol(t, s, r) })
	t.Run("DNS", func(t *testing.T) { testDNSName(t, s, r) })
	t.Run("Policy", func(t *testing.T) { testNamePolicy(t, s, r, web) })
	t.Run("Hello", func(t *testing.T) { testLongHello(t, s) })
}

// testLongHello has a host send TLS hellos that are longer than a segment, each as one
// super-packet, through its own interface.
func testLongHello(t *testing.T, s *suite) {
	near, far := pair(t, false)
	web, err := far.NGINX(testContext(t), lab.Web{Port: 443, TLS: true, Name: videoName})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(web.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("no certificate in %s", web.CA)
	}
	// Go's hello has the key share of X25519MLKEM768 (1216 bytes); with these it is 2 kB.
	protocols := []string{"http/1.1"}
	for n := range 40 {
		protocols = append(protocols, fmt.Sprintf("protocol-%02d.example", n))
	}
	s.attach(t, near, "eth0")
	stop := start(t, near, "eth0", "tcp")
	for _, addr := range []string{"10.0.1.2", "fd00:1::2"} {
		conn, err := near.Dial(testContext(t), "tcp", "", netip.AddrPortFrom(netip.MustParseAddr(addr), 443).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := tls.Client(conn, &tls.Config{ServerName: videoName, RootCAs: roots, NextProtos: protocols})
		if err := client.HandshakeContext(testContext(t)); err != nil {
			t.Fatal(err)
		}
		record := s.decided(t, near, "tcp", 443, func(r flow.Record) bool { return r.Dst == netip.MustParseAddr(addr) })
		if record.Name != videoName || record.NameSource != "tls" || record.JA4 == "" || record.App != "netflix" {
			t.Errorf("%+v, want its name and JA4", record)
		}
	}
	// Each hello was one super-packet: longer than a frame with an MTU of 1500 bytes.
	supers, err := near.Packets(testContext(t), stop(), "dst port 443 and greater 1515")
	if err != nil {
		t.Fatal(err)
	}
	if len(supers) != 2 {
		t.Errorf("%d super-packets, want 2: %q", len(supers), supers)
	}
}

// decided waits for a decided flow to a port of the server that fits.
func (s *suite) decided(t *testing.T, h *lab.Host, proto string, port uint16, fits func(flow.Record) bool) (found flow.Record) {
	t.Helper()
	err := lab.Until(testContext(t), fmt.Sprintf("a decided flow to port %d", port), func() (bool, error) {
		for _, r := range s.flows(t, h, "eth0") {
			if r.Proto == proto && r.DstPort == port && r.Final && fits(r) {
				found = r
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("%v; %+v", err, s.flows(t, h, "eth0"))
	}
	return found
}

func testServerName(t *testing.T, s *suite, r *lab.Routed, web *lab.WebServer) {
	for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		if out, err := r.Client.Run(testContext(t), "curl", web.CurlArgs(addr, "film")...); err != nil {
			t.Fatalf("curl: %v: %s", err, out)
		}
		record := s.decided(t, r.Router, "tcp", 443, func(r flow.Record) bool { return r.Dst == netip.MustParseAddr(addr) })
		if record.Category != "streaming" || record.CategorySource != "name" || record.App != "netflix" || record.AppSource != "name" ||
			record.Protocol != "tls" || record.Name != videoName || record.NameSource != "tls" || record.JA4 == "" {
			t.Errorf("%+v, want it decided by its name", record)
		}
		table := s.run(t, r.Router, "flows", "eth0", "--filter", "name:netflix.com").want(t, cli.ExitDone, videoName, "tls", "netflix")
		if strings.Contains(table.out, "100  netflix") {
			t.Errorf("a name has a probability:\n%s", table.out)
		}

		key := record.Key().String()
		s.run(t, r.Router, "explain", "eth0", key).want(t, cli.ExitDone, "by its name", "catalogue", "TLS", "it would have said", "0000")
		var why struct {
			Name        string
			Explanation struct {
				Catalogue struct{ App string }
				Networks  map[string][]struct{ Probability float64 }
				Samples   []struct{ Packet string }
			}
		}
		out := s.run(t, r.Router, "explain", "eth0", key, "-o", "json").want(t, cli.ExitDone)
		if err := json.Unmarshal([]byte(out.out), &why); err != nil {
			t.Fatalf("%v: %s", err, out.out)
		}
		if e := why.Explanation; why.Name != videoName || e.Catalogue.App != "netflix" || len(e.Networks["category"]) != 3 || len(e.Samples) == 0 {
			t.Errorf("%+v", why)
		}
	}
	s.run(t, r.Router, "explain", "eth0", "tcp 192.0.2.1:1 192.0.2.2:2").want(t, cli.ExitFailed, "dpclass flows eth0")
	t.Run("Bpftool", func(t *testing.T) { testBpftool(t, r) })
}

// testBpftool reads what bpftool prints of the maps: the protocol and the source as words,
// the name as text.
func testBpftool(t *testing.T, r *lab.Routed) {
	if _, err := lab.FindProgram("bpftool"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	for name, words := range map[string][]string{"flows": {"protocol_tls", "source_name"}, "evidence": {videoName}} {
		pins, err := filepath.Glob(filepath.Join(bpffs, "dpclass", "v*", "eth0@*", name))
		if err != nil || len(pins) != 1 {
			t.Fatalf("pins of %s: %q, %v", name, pins, err)
		}
		dump, err := r.Router.Run(testContext(t), "bpftool", "map", "dump", "pinned", pins[0])
		if err != nil {
			t.Fatalf("bpftool: %v: %s", err, dump)
		}
		for _, word := range words {
			if !strings.Contains(dump, word) {
				t.Errorf("bpftool does not print %s of %s:\n%s", word, name, dump)
			}
		}
	}
}

func testProtocol(t *testing.T, s *suite, r *lab.Routed) {
	server, err := r.Server.SSHD(testContext(t), 2222, map[string]int64{"file": 1000})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := r.Client.SSH(testContext(t), server, r.ServerAddr4, "true"); err != nil {
		t.Fatalf("ssh: %v: %s", err, out)
	}
	record := s.decided(t, r.Router, "tcp", 2222, func(flow.Record) bool { return true })
	if record.Category != "remote" || record.CategorySource != "protocol" || record.Protocol != "ssh" || record.App != "" {
		t.Errorf("%+v, want remote by its protocol", record)
	}
}

// testDNSName has a DNS server give an address; a flow to it without a name gets the name.
func testDNSName(t *testing.T, s *suite, r *lab.Routed) {
	ctx := testContext(t)
	server, err := r.Server.ListenUDP(ctx, r.ServerAddr4+":53")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	owner := dnsmessage.MustNewName("chat.example.org.")
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: owner, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: 300},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(r.ServerAddr4).As4()},
		}},
	}
	answer, err := message.Pack()
	if err != nil {
		t.Fatal(err)
	}
	client, err := r.Client.Dial(ctx, "udp", "", r.ServerAddr4+":53")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	packet := make([]byte, 1500)
	// Both directions of the router see the answer; the agent may need a moment to read it.
	err = lab.Until(ctx, "the name of the DNS answer", func() (bool, error) {
		if _, err := client.Write(answer[:12]); err != nil {
			return false, err
		}
		_, from, err := server.ReadFromUDPAddrPort(packet)
		if err != nil {
			return false, err
		}
		if _, err := server.WriteToUDPAddrPort(answer, from); err != nil {
			return false, err
		}
		k := newTalkTCP(t, r)
		k.ask(t)
		record := s.waitFlow(t, r.Router, "eth0", k.key)
		k.ask(t)
		return record.Name == "chat.example.org" && record.NameSource == "dns", nil
	})
	if err != nil {
		t.Error(err)
	}
}

// testNamePolicy drops by server name, and by port and host before there is any verdict.
func testNamePolicy(t *testing.T, s *suite, r *lab.Routed, web *lab.WebServer) {
	fetch := func() error {
		// The server sends for a second: the verdict comes before the end.
		args := append(web.CurlArgs(r.ServerAddr4, "film"), "--max-time", "4")
		_, err := r.Client.Run(testContext(t), "curl", args...)
		return err
	}
	for _, match := range []string{
		"name: netflix.com", "protocol: tls", "source: name", "port: tcp/443", "host: " + r.ServerAddr4, "category: streaming, app: netflix",
	} {
		s.apply(t, r.Router, "version: 1\nrules:\n  - match: {"+match+"}\n    action: {drop: true}\n")
		if err := fetch(); err == nil {
			t.Errorf("%s: a drop rule lets the download pass", match)
		}
		rules := s.rules(t, r.Router)
		if len(rules) != 1 || rules[0].Counters.Dropped == 0 {
			t.Errorf("%s: rules %+v", match, rules)
		}
	}
	for _, match := range []string{"name: flix.com", "protocol: quic", "source: model, name: netflix.com", "port: 444", "host: 192.0.2.0/24"} {
		s.apply(t, r.Router, "version: 1\nrules:\n  - match: {"+match+"}\n    action: {drop: true}\n")
		if err := fetch(); err != nil {
			t.Errorf("%s: a rule for other flows stops the download: %v", match, err)
		}
	}
	s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
}
