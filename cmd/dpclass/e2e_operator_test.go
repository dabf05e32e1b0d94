// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/onnxtest"
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

// testSwap has an agent take up other models by dpclass reload, and keep those that it has
// if the new ones are damaged, have labels that the interface does not know, or read more
// packets than it copies.
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
	write := func(name, label string, change func(map[string]any)) {
		t.Helper()
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		fields["name"] = name
		fields["labels"].(map[string]any)["category"].([]any)[0] = label
		if change != nil {
			change(fields)
		}
		changed, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		offlineSave(t, filepath.Join(dir, "mine.json"), changed)
	}
	write("first", "own-label", nil)
	r := routed(t, lab.Topology{})
	p := s.attach(t, r.Router, "eth0", "eth1", "--model", model)
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

	refused := func(says ...string) {
		t.Helper()
		s.run(t, r.Router, "reload", "eth0").want(t, cli.ExitFailed, append(says, "models were not changed")...)
		if got := s.status(t, r.Router, "eth0"); !got.Ready || !slices.Equal(got.Agent.Model, []string{"first"}) || got.Agent.ReloadError == "" {
			t.Errorf("after a reload that was refused: %+v", got.Agent)
		}
	}
	offlineSave(t, filepath.Join(dir, "mine.json"), []byte("{}"))
	refused("reads format")
	write("third", "new-label", nil)
	refused("new-label", "attach it again")
	write("fourth", "own-label", func(fields map[string]any) { fields["samples"] = flow.MaxSamples })
	refused("read 255 packets of a flow", "attach it again")
	write("second", "own-label", nil)
	s.run(t, r.Router, "reload", "eth0", "eth1").want(t, cli.ExitDone, "eth0, eth1: models second")
	if got := s.status(t, r.Router, "eth1").Agent; !slices.Equal(got.Model, []string{"second"}) || got.ReloadError != "" || got.Reloads != 4 {
		t.Errorf("%+v", got)
	}
	// The final verdict stays, a new flow gets the new model's.
	if got := s.flows(t, r.Router, "eth0")[k.key]; got.Model != "first" || !got.Final {
		t.Errorf("the verdict before the swap: %+v", got)
	}
	k = newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6502)
	k.ask(t, 10)
	decided("second")

	s.run(t, r.Router, "reload", "lo").want(t, cli.ExitFailed, "not attached")
	s.run(t, r.Router, "reload", "eth0", "--all").want(t, cli.ExitUsage, "--all")
	s.run(t, r.Router, "reload", "--all").want(t, cli.ExitDone, "models second")
	if err := p.Stop(); err != nil {
		t.Errorf("%v: %s", err, p.Output())
	}
	s.run(t, r.Router, "reload", "--all").want(t, cli.ExitDone, "no agent is running")
	testFewerTasks(t, s, r)
}

// testFewerTasks changes from a model with two tasks to one with one of them: of a flow that
// is not decided yet, nothing stays of what the first model said on the other task.
func testFewerTasks(t *testing.T, s *suite, r *lab.Routed) {
	t.Helper()
	network, err1 := os.ReadFile("../../models/default.onnx")
	manifest, err2 := os.ReadFile("../../models/default.json")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	model := offlineSave(t, filepath.Join(dir, "mine.onnx"), network)
	offlineSave(t, filepath.Join(dir, "mine.json"), manifest)
	s.attach(t, r.Router, "eth0", "--model", model, "--evidence", "model", "--min-confidence", "1")
	k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6503)
	k.ask(t, 1)
	if err := lab.Until(testContext(t), "a verdict on both tasks", func() (bool, error) {
		got := s.flows(t, r.Router, "eth0")[k.key]
		return got.Category != "" && got.App != "" && !got.Final, nil
	}); err != nil {
		t.Fatal(err)
	}
	other := saveNetwork(t, onnxtest.Fitting())
	for _, suffix := range []string{".onnx", ".json"} {
		data, err := os.ReadFile(strings.TrimSuffix(other, ".onnx") + suffix)
		if err != nil {
			t.Fatal(err)
		}
		offlineSave(t, filepath.Join(dir, "mine"+suffix), data)
	}
	s.run(t, r.Router, "reload", "eth0").want(t, cli.ExitDone, "models test")
	if got := s.flows(t, r.Router, "eth0")[k.key]; got.App != "" || got.AppSource != "" {
		t.Errorf("%+v has an application of a model that is gone", got)
	}
	var found flow.Record
	if err := lab.Until(testContext(t), "a final verdict of the new model", func() (bool, error) {
		k.ask(t, 1)
		found = s.flows(t, r.Router, "eth0")[k.key]
		return found.Final && found.Model == "test", nil
	}); err != nil || found.App != "" {
		t.Errorf("%v: %+v", err, found)
	}
}
