// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// alone makes one host with nothing but its loopback device.
func alone(t *testing.T) *lab.Host {
	t.Helper()
	h, err := lab.ForTest(t).Host("alone")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// testUsage has wrong usage end with 2, and failures with 1.
func testUsage(t *testing.T, s *suite) {
	h := alone(t)
	for _, args := range [][]string{
		{"nosuchverb"}, {"attach"}, {"attach", "eth0", "eth0"}, {"attach", "eth0", "--mode", "generic"},
		{"attach", "eth0", "--samples", "256"}, {"attach", "eth0", "--min-confidence", "1.5"}, {"attach", "eth0", "--no-classify", "--model", "default"},
		{"attach", "eth0", "--direction", "up"}, {"detach"}, {"detach", "eth0", "--all"}, {"status", "a", "b"}, {"flows", "set", "eth0"},
		{"flows", "set", "eth0", "tcp 10.0.0.1:1 10.0.0.2:2"}, {"flows", "set", "eth0", "icmp 10.0.0.1:1 10.0.0.2:2", "--category", "voip"},
		{"flows", "set", "eth0", "tcp 10.0.0.1 10.0.0.2:2", "--category", "voip"}, {"flows", "set", "eth0", "tcp 10.0.0.1:1 [fd00::1]:2", "--category", "voip"},
		{"flows", "--sort", "beauty"}, {"flows", "--filter", "nosuch:1"}, {"flows", "--watch", "-o", "json"}, {"flows", "-o", "yaml"},
		{"policy"}, {"policy", "apply", "eth0"}, {"policy", "check"}, {"classify"}, {"models", "nosuch"}, {"--nosuch"},
	} {
		got := s.run(t, h, args...)
		if got.code != cli.ExitUsage || got.out != "" {
			t.Errorf("%q: exit %d, %s%s", args, got.code, got.out, got.err)
			continue
		}
		checkError(t, got.err)
	}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"status", "eth0"}, "not attached"},
		{[]string{"flows", "eth0"}, "not attached"},
		{[]string{"flows", "set", "eth0", "tcp 10.0.0.1:1 10.0.0.2:2", "--category", "voip"}, "not attached"},
		{[]string{"policy", "show", "eth0"}, "not attached"},
		{[]string{"policy", "clear", "eth0"}, "not attached"},
		{[]string{"status", "--netns", "nosuchnetns"}, "nosuchnetns"},
		{[]string{"attach", "nosuch0", "--no-classify"}, "nosuch0"},
		{[]string{"attach", "nosuch0", "--no-classify", "--policy", "/nonexistent.yaml"}, "/nonexistent.yaml"},
		{[]string{"attach", "lo", "--no-classify", "--policy", save(t, "bad.yaml", "version: 2\n")}, "version"},
	} {
		s.run(t, h, test.args...).want(t, cli.ExitFailed, test.says)
	}
	s.run(t, h, "status").want(t, cli.ExitFailed)
	s.run(t, h, "detach", "eth0").want(t, cli.ExitFailed, "does not exist")
	s.run(t, h, "detach", "lo").want(t, cli.ExitDone)
	s.run(t, h, "detach", "--all").want(t, cli.ExitDone)
	s.run(t, h, "flows", "-o", "json").want(t, cli.ExitDone)
	s.run(t, h, "version").want(t, cli.ExitDone)
	noPins(t)
}

// testCaptures gives classify files that are no captures, or not whole.
func testCaptures(t *testing.T, s *suite) {
	s.needLibrary(t)
	h, dir := alone(t), t.TempDir()
	whole := twoFlows()
	lying := bytes.Clone(whole)
	copy(lying[24+8:], []byte{0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff})
	random := make([]byte, 4096)
	for i := range random {
		random[i] = byte(i*i*7 + i>>3)
	}
	for _, test := range []struct {
		name  string
		data  []byte // nil: there is no such file
		code  int
		says  string // on standard error
		flows int
	}{
		{"missing.pcap", nil, cli.ExitFailed, "no such file", 0},
		{"empty.pcap", []byte{}, cli.ExitFailed, "empty", 0},
		{"random.pcap", random, cli.ExitFailed, "neither pcap nor pcapng", 0},
		{"lying.pcap", lying, cli.ExitFailed, "4294967280", 0},
		{"first-cut.pcap", whole[:50], cli.ExitFailed, "complete packet", 0},
		{"header.pcap", whole[:24], cli.ExitDone, "", 0},
		{"cut.pcap", whole[:len(whole)-1], cli.ExitDone, "warning", 1},
		{"whole.pcap", whole, cli.ExitDone, "", 2},
	} {
		path := filepath.Join(dir, test.name)
		if test.data != nil {
			offlineSave(t, path, test.data)
		}
		got := s.run(t, h, "classify", "-o", "json", path)
		if got.code != test.code || len(readRecords(t, got.out)) != test.flows || !strings.Contains(got.err, test.says) {
			t.Errorf("%s: exit %d, %s%s; want %d, %d flows and %q", test.name, got.code, got.out, got.err, test.code, test.flows, test.says)
		}
		if test.says == "" && got.err != "" || test.says != "" && !strings.Contains(got.err, path) {
			t.Errorf("%s: %q", test.name, got.err)
		}
		if test.says != "" {
			checkError(t, got.err)
		}
	}
	// The flow before the cut has all of its packets.
	for _, r := range readRecords(t, s.run(t, h, "classify", "-o", "json", filepath.Join(dir, "cut.pcap")).out) {
		if r.Packets != 4 || r.Bytes != 4*40+1460 {
			t.Errorf("the flow before the cut: %+v", r)
		}
	}
	// One bad file of several keeps no other from being shown.
	got := s.run(t, h, "classify", "-o", "json", filepath.Join(dir, "empty.pcap"), filepath.Join(dir, "whole.pcap")).want(t, cli.ExitFailed, "empty.pcap")
	if len(readRecords(t, got.out)) != 2 {
		t.Errorf("%s", got.out)
	}
}

// testModels gives attach and classify models that do not fit.
func testModels(t *testing.T, s *suite) {
	s.needLibrary(t)
	near, _ := pair(t, false)
	manifest, err := os.ReadFile("../../models/default.json")
	if err != nil {
		t.Fatal(err)
	}
	network, err := os.ReadFile("../../models/default.onnx")
	if err != nil {
		t.Fatal(err)
	}
	capture := offlineSave(t, filepath.Join(t.TempDir(), "whole.pcap"), twoFlows())
	for name, test := range map[string]struct {
		change  func(fields map[string]any)
		network []byte
		says    string
	}{
		"hash":   {network: append(bytes.Clone(network), 0), says: "sha256"},
		"format": {change: func(f map[string]any) { f["format"] = 2 }, says: "format"},
		"vector": {change: func(f map[string]any) { f["vector"] = 2 }, says: "vector"},
		"labels": {change: func(f map[string]any) {
			labels := f["labels"].(map[string]any)
			labels["category"] = labels["category"].([]any)[1:]
		}, says: "category"},
		"task":    {change: func(f map[string]any) { f["task"] = []string{"mood"} }, says: "mood"},
		"not one": {change: func(f map[string]any) { clear(f) }, says: "format"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var fields map[string]any
			if err := json.Unmarshal(manifest, &fields); err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				test.change(fields)
			}
			text, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			offlineSave(t, filepath.Join(dir, "mine.json"), text)
			if test.network == nil {
				test.network = network
			}
			path := offlineSave(t, filepath.Join(dir, "mine.onnx"), test.network)
			s.run(t, near, "classify", capture, "--model", path).want(t, cli.ExitFailed, "mine", test.says)
			s.run(t, near, "attach", "eth0", "--model", path).want(t, cli.ExitFailed, "mine", test.says)
		})
	}
	s.run(t, near, "attach", "eth0", "--model", "nosuch").want(t, cli.ExitFailed, "nosuch", "default")
	s.run(t, near, "attach", "eth0", "--model", "/nonexistent.onnx").want(t, cli.ExitFailed, "/nonexistent.onnx")
	s.run(t, near, "attach", "eth0", "--onnxruntime", "/nonexistent").want(t, cli.ExitFailed, "/nonexistent")
	noPins(t)

	t.Run("cnn-traffic", func(t *testing.T) {
		near, far := pair(t, true)
		s.attach(t, near, "eth0", "--model", "cnn-traffic", "--evidence", "model")
		if out, err := far.Replay(testContext(t), lab.Replay{Iface: "eth0", File: record(t), PPS: 400}); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		decided := func() (bool, error) {
			status := s.status(t, near, "eth0")
			return status.Flows > 3, nil
		}
		if err := lab.Until(testContext(t), "verdicts of cnn-traffic", decided); err != nil {
			t.Error(err)
		}
		for key, r := range s.flows(t, near, "eth0") {
			if r.Final && (r.Model != "cnn-traffic" || r.Category == "" || r.App != "" || r.Source != "model") {
				t.Errorf("flow %q: %+v %+v", key, r, r.Live)
			}
		}
		if got := s.status(t, near, "eth0").Agent.Model; len(got) != 1 || got[0] != "cnn-traffic" {
			t.Errorf("models %q", got)
		}
	})
}
