// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// testLife has an agent end in every way.
func testLife(t *testing.T, s *suite) {
	for _, mode := range []string{"native", "tc"} {
		for name, signal := range map[string]syscall.Signal{"SIGTERM": unix.SIGTERM, "SIGINT": unix.SIGINT} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				near, _ := pair(t, false)
				p := s.attach(t, near, "eth0", "--no-classify", "--mode", mode)
				if out := p.Output(); !strings.Contains(out, "mode "+mode) || !strings.Contains(out, "driver veth") {
					t.Errorf("attach printed %q", out)
				}
				before := ours(t)
				if err := p.Signal(signal); err != nil {
					t.Fatal(err)
				}
				if err := p.Wait(); err != nil {
					t.Errorf("%v: %s", err, p.Output())
				}
				nothingLeft(t, before, near)
				s.run(t, near, "status", "eth0").want(t, cli.ExitFailed, "not attached")
			})
		}
	}
	t.Run("Killed", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify")
		before := ours(t)
		kill(t, p)
		if got := s.run(t, near, "status", "eth0"); got.code != cli.ExitFailed || !strings.Contains(got.out, "not ready") {
			t.Errorf("status without an agent: exit %d, %s%s", got.code, got.out, got.err)
		}
		s.run(t, near, "flows", "eth0").want(t, cli.ExitDone)
		// Another agent can attach.
		again := s.attach(t, near, "eth0", "--no-classify")
		if got := s.status(t, near, "eth0"); got.Agent == nil || got.Agent.PID != again.Pid() {
			t.Errorf("%+v", got.Agent)
		}
		kill(t, again)
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone)
		nothingLeft(t, before, near)
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone) // twice is no error
	})
}

// moments are the stages of an agent's start that can be seen from outside.
var moments = []struct {
	name  string
	comes func(t *testing.T, h *lab.Host, p *lab.Process) bool
}{
	{"a pinned directory", func(t *testing.T, _ *lab.Host, _ *lab.Process) bool { return pinned(t, "") }},
	{"pinned maps", func(t *testing.T, _ *lab.Host, _ *lab.Process) bool { return pinned(t, "flows") }},
	{"a program on the device", func(t *testing.T, h *lab.Host, _ *lab.Process) bool {
		out, err := h.Run(testContext(t), "ip", "-details", "link", "show", "dev", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out, "xdp")
	}},
	{"attached", func(_ *testing.T, _ *lab.Host, p *lab.Process) bool { return strings.Contains(p.Output(), "attached") }},
}

// pinned reports whether eth0 has a pin of that name, or any.
func pinned(t *testing.T, name string) bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(bpffs, "dpclass", "v*", "eth0@*", name))
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}

// testStart ends an agent at each stage of its start, in every way. Afterwards nothing is
// left, or only what the next agent can take over. If two start at once, one is refused.
func testStart(t *testing.T, s *suite) {
	near, _ := pair(t, false)
	for _, end := range []struct {
		name string
		by   func(t *testing.T, p *lab.Process)
	}{
		{"SIGTERM", func(t *testing.T, p *lab.Process) {
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(); err != nil {
				t.Errorf("%v: %s", err, p.Output())
			}
		}},
		{"SIGKILL, then detach", func(t *testing.T, p *lab.Process) {
			kill(t, p)
			s.run(t, near, "detach", "eth0").want(t, cli.ExitDone)
		}},
		{"SIGKILL, then another agent", func(t *testing.T, p *lab.Process) {
			kill(t, p)
			next := s.attach(t, near, "eth0", "--no-classify")
			if err := next.Stop(); err != nil {
				t.Errorf("%v: %s", err, next.Output())
			}
		}},
		{"detach", func(t *testing.T, p *lab.Process) {
			s.run(t, near, "detach", "eth0").want(t, cli.ExitDone)
			if err := p.Wait(); err != nil {
				t.Errorf("%v: %s", err, p.Output())
			}
		}},
	} {
		for _, moment := range moments {
			t.Run(end.name+" at "+moment.name, func(t *testing.T) {
				p := s.startAttach(t, near, nil, "eth0", "--no-classify", "--mode", "native")
				ctx := testContext(t)
				for !moment.comes(t, near, p) {
					select {
					case <-p.Done():
						t.Fatalf("attach ended: %v: %s", p.Wait(), p.Output())
					case <-ctx.Done():
						t.Fatalf("%s did not come: %s", moment.name, p.Output())
					default: // seen as soon as it comes: lab.Until would be too late for it
					}
				}
				end.by(t, p)
				noPins(t)
			})
		}
	}
	// A signal before the agent listens to signals ends it too.
	p := s.startAttach(t, near, nil, "eth0", "--no-classify")
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, p.Wait()); code != cli.ExitDone && code != -1 {
		t.Errorf("exit %d: %s", code, p.Output())
	}
	noPins(t)

	both := []*lab.Process{s.startAttach(t, near, nil, "eth0", "--no-classify"), s.startAttach(t, near, nil, "eth0", "--no-classify")}
	select {
	case <-both[0].Done():
	case <-both[1].Done():
		both[0], both[1] = both[1], both[0]
	}
	if code := exitCode(t, both[0].Wait()); code != cli.ExitFailed || !strings.Contains(both[0].Output(), "another agent") {
		t.Errorf("exit %d: %s", code, both[0].Output())
	}
	if err := both[1].WaitOutput(testContext(t), "attached"); err != nil {
		t.Fatal(err)
	}
	before := ours(t)
	if err := both[1].Stop(); err != nil {
		t.Errorf("%v: %s", err, both[1].Output())
	}
	nothingLeft(t, before, near)
}

func kill(t *testing.T, p *lab.Process) {
	t.Helper()
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, p.Wait()); code != -1 {
		t.Errorf("exit %d after SIGKILL", code)
	}
}

// testPersist lets the kernel continue without the agent, and the next agent take
// over what was known.
func testPersist(t *testing.T, s *suite) {
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			r := routed(t, lab.Topology{})
			rules := save(t, "policy.yaml", policyRules)
			first := s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify", "--persist", "--policy", rules)
			torrent, other := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6200), newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 6201)
			torrent.ask(t, 5)
			other.ask(t, 5)
			s.set(t, r.Router, torrent.key, "--app", "torrent")
			all := ours(t)
			enforced := func(when string, asked uint64) {
				t.Helper()
				if got := torrent.ask(t, 5); got != 0 {
					t.Errorf("%s: %d answers through a drop rule", when, got)
				}
				if got := other.ask(t, 5); got != 5 {
					t.Errorf("%s: %d answers of 5", when, got)
				}
				flows := s.flows(t, r.Router, "eth0")
				if got := flows[torrent.key]; got.App != "torrent" || got.Source != "operator" || !got.Final || got.Dropped != asked || got.PacketsIn != 5+asked {
					t.Errorf("%s: %+v %+v, want %d packets dropped", when, got, got.Live, asked)
				}
			}
			enforced("with the agent", 5)
			if err := first.Stop(); err != nil {
				t.Fatalf("%v: %s", err, first.Output())
			}
			enforced("without an agent", 10)
			if got := s.run(t, r.Router, "status", "eth0"); got.code != cli.ExitFailed || !strings.Contains(got.out, "not ready") {
				t.Errorf("status without an agent: exit %d, %s%s", got.code, got.out, got.err)
			}
			// An agent that cannot attach all its interfaces loses nothing of the earlier one,
			// and leaves nothing of its own.
			s.run(t, r.Router, "attach", "eth0", "eth1", "none0", "--mode", mode, "--no-classify", "--persist").want(t, cli.ExitFailed, "none0")
			s.run(t, r.Router, "status", "eth1").want(t, cli.ExitFailed, "not attached")
			enforced("after an agent that failed", 15)
			again := s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify")
			enforced("with the next agent", 20)
			all.programs = append(all.programs, ours(t).programs...)
			if err := again.Interrupt(); err != nil {
				t.Errorf("%v: %s", err, again.Output())
			}
			nothingLeft(t, all, r.Router)
			if got := torrent.ask(t, 5); got != 5 {
				t.Errorf("%d answers of 5 after detach", got)
			}
		})
	}
}

// testTakeover attaches with other settings what an agent left.
func testTakeover(t *testing.T, s *suite) {
	r := routed(t, lab.Topology{})
	k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6400)
	var all objects
	var in, out uint64
	for _, step := range []struct {
		mode, direction string
		in, out         uint64
	}{{"native", "both", 10, 10}, {"tc", "both", 10, 10}, {"native", "ingress", 10, 0}, {"tc", "egress", 0, 10}, {"native", "both", 10, 10}} {
		p := s.attach(t, r.Router, "eth0", "--mode", step.mode, "--direction", step.direction, "--no-classify", "--persist")
		if got := k.ask(t, 10); got != 10 {
			t.Errorf("%+v: %d answers of 10", step, got)
		}
		in, out = in+step.in, out+step.out
		if got := s.flows(t, r.Router, "eth0")[k.key]; got.Live == nil || got.PacketsIn != in || got.PacketsOut != out {
			t.Errorf("%+v: %+v, want %d in and %d out", step, got.Live, in, out)
		}
		if hooks := s.status(t, r.Router, "eth0").Hooks; len(hooks) != map[string]int{"both": 2, "ingress": 1, "egress": 1}[step.direction] {
			t.Errorf("%+v: %+v", step, hooks)
		}
		now := ours(t)
		all.programs, all.maps = append(all.programs, now.programs...), append(all.maps, now.maps...)
		if err := p.Stop(); err != nil {
			t.Errorf("%+v: %v: %s", step, err, p.Output())
		}
	}
	s.run(t, r.Router, "detach", "eth0").want(t, cli.ExitDone)
	nothingLeft(t, all, r.Router)

	if s.library == "" {
		t.Skip("SKIPPED, no ONNX Runtime: a flow that was half sampled when its agent ended")
	}
	testOtherLabels(t, s, r)
	// Final by the budget alone: two samples are counted by the first agent, which takes its sums with it.
	first := s.attach(t, r.Router, "eth0", "--min-confidence", "1", "--persist")
	half := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6401)
	half.ask(t, 1)
	if err := lab.Until(testContext(t), "a verdict that is not final", func() (bool, error) {
		return s.status(t, r.Router, "eth0").Agent.Samples == 2 && s.flows(t, r.Router, "eth0")[half.key].Category != "", nil
	}); err != nil {
		t.Error(err)
	}
	kill(t, first)
	half.ask(t, 1)
	s.attach(t, r.Router, "eth0", "--min-confidence", "1")
	if err := lab.Until(testContext(t), "a final verdict of the next agent", func() (bool, error) {
		half.ask(t, 2)
		return s.flows(t, r.Router, "eth0")[half.key].Final, nil
	}); err != nil {
		t.Errorf("%v: %+v", err, s.flows(t, r.Router, "eth0")[half.key])
	}
}

// testOtherLabels has a verdict and a rule keep the names that an earlier agent's
// model gave them.
func testOtherLabels(t *testing.T, s *suite, r *lab.Routed) {
	t.Helper()
	mine := func(name string) string {
		var fields map[string]any
		text, err := os.ReadFile("../../models/default.json")
		if err == nil {
			err = json.Unmarshal(text, &fields)
		}
		network, readErr := os.ReadFile("../../models/default.onnx")
		if err := errors.Join(err, readErr); err != nil {
			t.Fatal(err)
		}
		fields["labels"].(map[string]any)["category"].([]any)[0] = name + "-label"
		fields["name"] = name
		if text, err = json.Marshal(fields); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		offlineSave(t, filepath.Join(dir, name+".json"), text)
		return offlineSave(t, filepath.Join(dir, name+".onnx"), network)
	}
	rules := save(t, "first.yaml", "version: 1\nrules:\n  - match: {category: first-label}\n    action: {dscp: EF}\n")
	p := s.attach(t, r.Router, "eth0", "--persist", "--model", mine("first"), "--policy", rules)
	k, other := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6402), newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6403)
	k.ask(t, 10)
	s.set(t, r.Router, k.key, "--category", "first-label")
	if err := p.Stop(); err != nil {
		t.Errorf("%v: %s", err, p.Output())
	}
	p = s.attach(t, r.Router, "eth0", "--model", mine("second"))
	other.ask(t, 10)
	s.set(t, r.Router, other.key, "--category", "second-label")
	other.ask(t, 10)
	k.ask(t, 1)
	flows := s.flows(t, r.Router, "eth0")
	if got := flows[k.key]; got.Category != "first-label" || got.Rule != 1 {
		t.Errorf("the first agent's verdict: %+v %+v", got, got.Live)
	}
	if got := flows[other.key]; got.Category != "second-label" || got.Rule != 0 {
		t.Errorf("the second agent's verdict: %+v %+v", got, got.Live)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("%v: %s", err, p.Output())
	}
}
