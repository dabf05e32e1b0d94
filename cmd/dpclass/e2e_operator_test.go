// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/vector/packettest"
	"github.com/dpclass/dpclass/lab"
)

// testMapped gives a verdict to a flow of IPv6 packets with IPv4-mapped addresses,
// by the expression that flows prints of it.
func testMapped(t *testing.T, s *suite) {
	watcher, sender := pair(t, true)
	s.attach(t, watcher, "eth0", "--no-classify")
	packet := packettest.Spec{IPv6: true, Proto: packettest.UDP, Payload: 50,
		Src: netip.MustParseAddrPort("[::ffff:10.0.1.2]:4000"), Dst: netip.MustParseAddrPort("[::ffff:10.0.1.1]:5000")}.Build().Data
	file := packettest.Pcap(packettest.Ethernet(packet))
	file[20] = 1 // LINKTYPE_ETHERNET
	if out, err := sender.Replay(testContext(t), lab.Replay{Iface: "eth0", File: save(t, "mapped.pcap", string(file))}); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key := parseKey(t, "udp 10.0.1.2:4000 10.0.1.1:5000")
	s.waitFlow(t, watcher, "eth0", key)
	s.run(t, watcher, "flows", "set", "eth0", key.Mapped().String(), "--category", "voip").want(t, cli.ExitDone, "::ffff:10.0.1.1")
	if got := s.flows(t, watcher, "eth0")[key]; got.Category != "voip" || got.Source != "operator" {
		t.Errorf("%+v", got)
	}
	s.run(t, watcher, "flows", "set", "eth0", "udp 10.0.1.2:4000 10.0.1.1:5001", "--category", "voip").want(t, cli.ExitFailed, "10.0.1.1:5001")
}

// testWatch follows the live table outside a terminal: one table after the other,
// until a signal ends it.
func testWatch(t *testing.T, s *suite) {
	r := routed(t, lab.Topology{})
	s.attach(t, r.Router, "eth0", "--no-classify")
	k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6500)
	k.ask(t, 5)
	p, err := r.Router.Start(testContext(t), s.binary, "flows", "eth0", "--watch", "--interval", "100ms")
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Until(testContext(t), "three tables", func() (bool, error) { return strings.Count(p.Output(), ":6500") >= 3, nil })
	if err != nil {
		t.Errorf("%v:\n%s", err, p.Output())
	}
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, p.Output())
	}
	if strings.Contains(p.Output(), "\x1b") {
		t.Error("control sequences outside a terminal")
	}
}

// testSwap has an agent take up other models at SIGHUP, and keep those that it has
// if the new ones are damaged, or have labels that the interface does not know.
func testSwap(t *testing.T, s *suite) {
	s.needLibrary(t)
	network, err := os.ReadFile("../../models/default.onnx")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../models/default.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	model := offlineSave(t, filepath.Join(dir, "mine.onnx"), network)
	write := func(name, label string) {
		t.Helper()
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		fields["name"] = name
		fields["labels"].(map[string]any)["category"].([]any)[0] = label
		changed, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		offlineSave(t, filepath.Join(dir, "mine.json"), changed)
	}
	write("first", "own-label")
	r := routed(t, lab.Topology{})
	p := s.attach(t, r.Router, "eth0", "--model", model)
	k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6501)
	k.ask(t, 10)
	decided := func(name string) {
		t.Helper()
		var found flow.Record
		err := lab.Until(testContext(t), "verdict of "+name, func() (bool, error) {
			k.ask(t, 1)
			found = s.flows(t, r.Router, "eth0")[k.key]
			return found.Final && found.Model == name, nil
		})
		if err != nil {
			t.Errorf("%v: %+v", err, found)
		}
	}
	decided("first")

	hangup := func() {
		t.Helper()
		if err := p.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	offlineSave(t, filepath.Join(dir, "mine.json"), []byte("{}"))
	hangup()
	if err := p.WaitOutput(testContext(t), "reads format"); err != nil {
		t.Error(err)
	}
	write("third", "new-label")
	hangup()
	if err := p.WaitOutput(testContext(t), "attach it again"); err != nil {
		t.Error(err)
	}
	write("second", "own-label")
	hangup()
	err = lab.Until(testContext(t), "the second model", func() (bool, error) {
		agent := s.status(t, r.Router, "eth0").Agent
		return agent != nil && slices.Equal(agent.Model, []string{"second"}), nil
	})
	if err != nil {
		t.Fatalf("%v: %s", err, p.Output())
	}
	// The final verdict stays, a new flow gets the new model's.
	if got := s.flows(t, r.Router, "eth0")[k.key]; got.Model != "first" || !got.Final {
		t.Errorf("the verdict before the swap: %+v", got)
	}
	k = newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6502)
	k.ask(t, 10)
	decided("second")
}
