// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// contract are the fields that a live flow has with -o json.
var contract = []string{
	"iface", "src", "dst", "src_port", "dst_port", "proto", "category", "category_confidence", "app", "app_confidence", "source",
	"final", "packets", "bytes", "packets_in", "bytes_in", "packets_out", "bytes_out", "dropped", "samples", "first_seen", "last_seen",
}

// testEnded follows flows from their first packet to their end, in every view.
func testEnded(t *testing.T, s *suite) {
	ctx := testContext(t)
	r := routed(t, lab.Topology{})
	web, err := r.Server.NGINX(ctx, lab.Web{Port: 80, Files: map[string]int64{"page": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "ended.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := []string{"attach", "eth0", "--log-format", "json"}
	if s.library == "" {
		args = append(args, "--no-classify")
	}
	cmd, err := r.Router.Command(ctx, s.binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Env = log, s.env()
	agent, err := r.Router.StartCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Until(ctx, "ready", func() (bool, error) { return s.run(t, r.Router, "status", "eth0").code == cli.ExitDone, nil }); err != nil {
		t.Fatal(err)
	}
	open := newTalkTCP(t, r)
	open.ask(t)
	for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		if _, err := r.Client.Run(ctx, "curl", web.CurlArgs(addr, "page")...); err != nil {
			t.Fatal(err)
		}
	}
	ended := map[flow.Key]flow.Record{}
	if err := lab.Until(ctx, "two flows ended", func() (bool, error) {
		ended = s.flows(t, r.Router, "eth0", "--ended")
		return len(ended) == 2, nil
	}); err != nil {
		t.Fatal(err)
	}
	live := s.flows(t, r.Router, "eth0")
	for key, record := range ended {
		at := live[key] // still visible
		if record.Ended != "fin" || record.DstPort != 80 || at.Ended != "fin" || at.Packets != record.Packets || at.Bytes != record.Bytes ||
			record.Src.String() != map[bool]string{false: r.ClientAddr4, true: r.ClientAddr6}[key.Is6()] {
			t.Errorf("ended %+v %+v, live %+v", record, record.Live, at.Live)
		}
	}
	if len(live) != 3 || live[open.key].Ended != "" {
		t.Errorf("%d flows: %+v", len(live), live[open.key].Live)
	}

	// Each record has the fields of the contract, and times in UTC.
	var out string
	for _, args := range [][]string{{"flows", "eth0", "-o", "json"}, {"flows", "-o", "json", "--ended"}} {
		out += s.run(t, r.Router, args...).want(t, cli.ExitDone).out
	}
	for line := range strings.Lines(out) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, name := range contract {
			if _, ok := fields[name]; !ok {
				t.Errorf("field %q is missing in %s", name, line)
			}
		}
		for _, name := range []string{"first_seen", "last_seen"} {
			if at, _ := fields[name].(string); !strings.HasSuffix(at, "Z") {
				t.Errorf("%s is %q, want UTC", name, at)
			}
		}
	}

	// An operator's verdict, either end first.
	a, b := open.key.A, open.key.B
	for i, expression := range []string{fmt.Sprintf("tcp %s %s", a, b), fmt.Sprintf("TCP %s %s", b, a)} {
		category := []string{"voip", "chat"}[i]
		s.run(t, r.Router, "flows", "set", "--category", category, "eth0", "--app", "skype", expression).want(t, cli.ExitDone)
		if got := s.flows(t, r.Router, "eth0")[open.key]; got.Category != category || got.App != "skype" || got.Source != "operator" || !got.Final ||
			got.CategoryConfidence != 1 {
			t.Errorf("%+v", got)
		}
	}
	open.ask(t) // nor does the model change it
	if got := s.flows(t, r.Router, "eth0")[open.key]; got.Category != "chat" || got.Source != "operator" {
		t.Errorf("%+v", got)
	}
	s.run(t, r.Router, "flows", "set", "eth0", open.key.String(), "--category", "voipp").want(t, cli.ExitFailed, "voipp", "voip")
	s.run(t, r.Router, "flows", "set", "eth0", "tcp 10.9.9.9:1 10.9.9.8:2", "--category", "voip").want(t, cli.ExitFailed, "no such flow")

	// A connection on a key that was used before is a flow of its own.
	reused := newTalkTCP(t, r)
	reused.ask(t)
	s.set(t, r.Router, reused.key, "--category", "voip")
	first := s.flows(t, r.Router, "eth0")[reused.key]
	reused.again(t, r)
	reused.ask(t)
	second := s.flows(t, r.Router, "eth0")[reused.key]
	if second.Source == "operator" || second.Generation == first.Generation || second.Packets > first.Packets || second.Ended != "" || second.Midstream {
		t.Errorf("first %+v %+v, second %+v %+v", first, first.Live, second, second.Live)
	}
	if was := s.flows(t, r.Router, "eth0", "--ended")[reused.key]; was.Ended != "rst" || was.Category != "voip" || was.Generation != first.Generation {
		t.Errorf("the first, ended: %+v %+v", was, was.Live)
	}

	// bpftool shows it by name.
	pins, err := filepath.Glob(filepath.Join(bpffs, "dpclass", "v*", "eth0@*", "flows"))
	if err != nil || len(pins) != 1 {
		t.Fatalf("pins of flows: %q %v", pins, err)
	}
	if dump, err := r.Router.Run(ctx, "bpftool", "map", "dump", "pinned", pins[0]); err != nil || !strings.Contains(dump, `"category": `) {
		t.Errorf("%v: %s", err, dump)
	}

	// The log has each ended flow once.
	if err := agent.Stop(); err != nil {
		t.Errorf("%v: %s", err, agent.Output())
	}
	text, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	logged := readRecords(t, string(text))
	for key, record := range ended {
		if logged[key].Ended != "fin" || logged[key].Bytes != record.Bytes {
			t.Errorf("flow %q in the log: %+v", key, logged[key])
		}
	}
	if _, err := os.Stat(filepath.Join(bpffs, "dpclass")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
}
