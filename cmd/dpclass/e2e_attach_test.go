// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// testRefusals has attach refuse what it cannot do, and change nothing.
func testRefusals(t *testing.T, s *suite) {
	t.Run("Interface", func(t *testing.T) {
		near, _ := pair(t, false)
		s.run(t, near, "attach", "nosuch0", "--no-classify").want(t, cli.ExitFailed, "nosuch0")
		if _, err := near.Run(testContext(t), "ip", "link", "set", "eth0", "down"); err != nil {
			t.Fatal(err)
		}
		s.run(t, near, "attach", "eth0", "--no-classify").want(t, cli.ExitFailed, "eth0", "down")
		noPins(t)
	})
	t.Run("Second", func(t *testing.T) {
		near, _ := pair(t, false)
		first := s.attach(t, near, "eth0", "--no-classify")
		s.run(t, near, "attach", "eth0", "--no-classify").want(t, cli.ExitFailed, "eth0", "another agent", fmt.Sprint(first.Pid()))
		if got := s.status(t, near, "eth0"); !got.Ready || got.Agent == nil || got.Agent.PID != first.Pid() {
			t.Errorf("after the second attach: %+v", got)
		}
	})
	t.Run("SecondOfTwo", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		s.run(t, r.Router, "attach", "eth0", "nosuch0", "--no-classify").want(t, cli.ExitFailed, "nosuch0")
		noPins(t) // the first was taken off again
	})
	t.Run("ForeignXDP", func(t *testing.T) {
		for name, flags := range map[string]link.XDPAttachFlags{"native": link.XDPDriverMode, "generic": link.XDPGenericMode} {
			t.Run(name, func(t *testing.T) {
				near, _ := pair(t, false)
				foreign := attachForeign(t, near, flags)
				for _, mode := range []string{"native", "auto"} {
					s.run(t, near, "attach", "eth0", "--mode", mode, "--no-classify").want(t, cli.ExitFailed, "eth0", "XDP")
				}
				noPins(t)
				out, err := near.Run(testContext(t), "bpftool", "-j", "net")
				if err != nil || !strings.Contains(out, fmt.Sprintf(`"id":%d`, foreign)) || strings.Contains(out, "dpclass") {
					t.Errorf("the other program, %d, is to be there alone: %v %s", foreign, err, out)
				}
				// Beside it there is room.
				s.attach(t, near, "eth0", "--mode", "tc", "--no-classify")
			})
		}
	})
	t.Run("ForeignTCX", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		foreign, runs := attachForeignTCX(t, r.Router)
		p := s.attach(t, r.Router, "eth0", "--mode", "tc", "--no-classify")
		k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6300)
		before := runs()
		if got := k.ask(t, 10); got != 10 {
			t.Errorf("%d answers of 10", got)
		}
		if got := s.flows(t, r.Router, "eth0")[k.key]; got.Live == nil || got.PacketsIn != 10 || got.PacketsOut != 10 {
			t.Errorf("%+v", got.Live)
		}
		if got := runs() - before; got < 10 {
			t.Errorf("the other program saw %d packets of 10", got)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		device, err := r.Router.Link("eth0")
		if err != nil {
			t.Fatal(err)
		}
		for where, want := range map[ebpf.AttachType]string{ebpf.AttachTCXIngress: fmt.Sprint(foreign), ebpf.AttachTCXEgress: ""} {
			var got []string
			err := r.Router.Do(func() error {
				result, err := link.QueryPrograms(link.QueryOptions{Target: device.Attrs().Index, Attach: where})
				if err == nil {
					for _, program := range result.Programs {
						got = append(got, fmt.Sprint(program.ID))
					}
				}
				return err
			})
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%v: programs %q, want %q: %v", where, got, want, err)
			}
		}
	})
	t.Run("NetnsExec", func(t *testing.T) {
		near, _ := pair(t, false)
		s.run(t, alone(t), "attach", "eth0", "--no-classify", "--netns", "nosuch").want(t, cli.ExitFailed, "nosuch")
		cmd, err := near.Command(testContext(t), "ip", "netns", "exec", near.Netns(), s.binary, "attach", "eth0", "--no-classify")
		if err != nil {
			t.Fatal(err)
		}
		p, err := near.StartCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		(result{exitCode(t, p.Wait()), "", p.Output()}).want(t, cli.ExitFailed, bpffs, "--netns")
	})
	t.Run("NoLibrary", func(t *testing.T) {
		near, _ := pair(t, false)
		missing := []string{"DPCLASS_ONNXRUNTIME=/nonexistent"}
		s.runEnv(t, near, missing, "attach", "eth0").want(t, cli.ExitFailed, "/nonexistent")
		noPins(t)
		p := s.attachEnv(t, near, missing, "eth0", "--no-classify")
		s.runEnv(t, near, missing, "status").want(t, cli.ExitDone, "no-classify")
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
	})
}

// attachForeign puts an XDP program of somebody else on eth0.
func attachForeign(t *testing.T, h *lab.Host, flags link.XDPAttachFlags) ebpf.ProgramID {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	device, err := h.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: device.Attrs().Index, Flags: flags})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

// attachForeignTCX puts a tcx program of somebody else on the ingress of eth0, and
// returns what counts its runs.
func attachForeignTCX(t *testing.T, h *lab.Host) (ebpf.ProgramID, func() uint64) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	device, err := h.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		attached, err := link.AttachTCX(link.TCXOptions{Program: program, Attach: ebpf.AttachTCXIngress, Interface: device.Attrs().Index})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skipf("SKIPPED, no tcx: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stats.Close() })
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id, func() uint64 { return runCount(t, id) }
}

// testInterfaces serves several interfaces by one agent, and interfaces of the
// same name in several namespaces.
func testInterfaces(t *testing.T, s *suite) {
	t.Run("OneAgent", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		p := s.attach(t, r.Router, "eth0", "eth1", "--no-classify")
		k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6100)
		if got := k.ask(t, 10); got != 10 {
			t.Fatalf("%d answers of 10", got)
		}
		// A flow that crosses both is two rows.
		for iface, in := range map[string]string{"eth0": "10.0.1.2", "eth1": "10.0.1.2"} {
			record := s.flows(t, r.Router, iface)[k.key]
			if record.Iface != iface || record.PacketsIn != 10 || record.PacketsOut != 10 || record.Bytes != 20*128 || record.Src.String() != in {
				t.Errorf("%s: %+v %+v", iface, record, record.Live)
			}
			if got := s.status(t, r.Router, iface); got.Agent == nil || got.Agent.PID != p.Pid() {
				t.Errorf("%s: %+v", iface, got.Agent)
			}
		}
		if out := s.run(t, r.Router, "flows", "-o", "json").want(t, cli.ExitDone).out; strings.Count(out, "\n") != 2 {
			t.Errorf("flows of all interfaces: %s", out)
		}
		if out := s.run(t, r.Router, "status", "-o", "json").want(t, cli.ExitDone).out; strings.Count(out, "\n") != 2 {
			t.Errorf("status of all interfaces: %s", out)
		}
		before := ours(t)
		s.run(t, r.Router, "detach", "eth0", "eth1").want(t, cli.ExitDone)
		if err := p.Wait(); err != nil {
			t.Errorf("the agent: %v: %s", err, p.Output())
		}
		nothingLeft(t, before, r.Router)
	})
	t.Run("TwoNamespaces", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		client := s.attach(t, r.Client, "eth0", "--no-classify")
		// The other from outside, as an operator would.
		outside := alone(t)
		server := s.startAttach(t, outside, nil, "eth0", "--no-classify", "--netns", r.Server.Netns())
		if err := server.WaitOutput(testContext(t), "attached"); err != nil {
			t.Fatal(err)
		}
		k := newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 6101)
		if got := k.ask(t, 10); got != 10 {
			t.Errorf("%d answers of 10", got)
		}
		at := s.flows(t, r.Client, "eth0")[k.key]
		if at.Live == nil || at.PacketsOut != 10 || at.PacketsIn != 10 {
			t.Errorf("at the client: %+v", at.Live)
		}
		out := s.run(t, outside, "flows", "eth0", "-o", "json", "--netns", r.Server.Netns()).want(t, cli.ExitDone).out
		if at := readRecords(t, out)[k.key]; at.Live == nil || at.PacketsOut != 10 || at.PacketsIn != 10 || at.Bytes != 20*148 {
			t.Errorf("at the server: %+v", at.Live)
		}
		s.run(t, outside, "flows", "set", "eth0", k.key.String(), "--category", "voip", "--netns", r.Server.Netns()).want(t, cli.ExitDone)
		if at := s.flows(t, r.Client, "eth0")[k.key]; at.Category != "" {
			t.Errorf("the verdict of the server's flow stands at the client: %+v", at)
		}
		all := ours(t)
		s.run(t, r.Client, "detach", "eth0").want(t, cli.ExitDone)
		if err := client.Wait(); err != nil {
			t.Errorf("%v: %s", err, client.Output())
		}
		s.run(t, r.Server, "status", "eth0").want(t, cli.ExitDone)
		s.run(t, outside, "status", "eth0").want(t, cli.ExitFailed, "not attached")
		s.run(t, outside, "detach", "--all").want(t, cli.ExitDone)
		if err := server.Wait(); err != nil {
			t.Errorf("%v: %s", err, server.Output())
		}
		nothingLeft(t, all, r.Client, r.Server)
	})
	t.Run("Tunnel", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			t.Skipf("SKIPPED, no tun devices: %v", err)
		}
		tunnel, err := lab.OpenVPN(testContext(t), r.Client, r.Server, r.ServerAddr4, 1194)
		if err != nil {
			t.Fatal(err)
		}
		p := s.attach(t, r.Client, "tun0", "eth0", "--no-classify")
		if got := s.status(t, r.Client, "tun0"); got.Mode != "tc" || got.Driver != "tun" {
			t.Errorf("mode %q, driver %q of a device without Ethernet", got.Mode, got.Driver)
		}
		stop := start(t, r.Client, "tun0")
		k := newTalk(t, r, tunnel.ClientAddr, tunnel.ServerAddr, 6103)
		if got := k.ask(t, 20); got != 20 {
			t.Errorf("%d answers of 20", got)
		}
		inside := s.flows(t, r.Client, "tun0")
		if err := sameCounts(inside, count(t, stop(), time.Time{})); err != nil || len(inside) != 1 {
			t.Errorf("%d flows in the tunnel: %v", len(inside), err)
		}
		outside := 0
		for _, record := range s.flows(t, r.Client, "eth0") {
			if record.DstPort == 1194 && record.PacketsOut >= 20 && record.PacketsIn >= 20 {
				outside++
			}
		}
		if outside != 1 {
			t.Errorf("the flow of the tunnel itself was seen %d times", outside)
		}
		s.run(t, r.Client, "flows", "set", "tun0", k.key.String(), "--category", "voip").want(t, cli.ExitDone)
		s.run(t, r.Client, "policy", "apply", "tun0", save(t, "mark.yaml", policyRules)).want(t, cli.ExitDone)
		stop = start(t, r.Server, "tun0")
		k.ask(t, 20)
		if c := count(t, stop(), time.Time{})[k.key]; c == nil || c.tos[46<<2|2] != 20 || c.badSums != 0 {
			t.Errorf("marked in the tunnel: %+v", c)
		}
		before := ours(t)
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		nothingLeft(t, before, r.Client)
	})
	t.Run("NamespaceGone", func(t *testing.T) {
		near, _ := pair(t, false)
		kill(t, s.attach(t, near, "eth0", "--no-classify"))
		before := ours(t)
		if err := near.Lab().Close(); err != nil {
			t.Fatal(err)
		}
		s.run(t, alone(t), "detach", "--all").want(t, cli.ExitDone)
		nothingLeft(t, before)
	})
	t.Run("Direction", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		for direction, want := range map[string]flow.Live{"ingress": {PacketsIn: 10, BytesIn: 1280}, "egress": {PacketsOut: 10, BytesOut: 1280}} {
			p := s.attach(t, r.Router, "eth0", "--no-classify", "--direction", direction)
			k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6102+len(direction))
			k.ask(t, 10)
			got := s.flows(t, r.Router, "eth0")[k.key].Live
			if got == nil || got.PacketsIn != want.PacketsIn || got.BytesIn != want.BytesIn || got.PacketsOut != want.PacketsOut || got.BytesOut != want.BytesOut {
				t.Errorf("%s: %+v", direction, got)
			}
			if hooks := s.status(t, r.Router, "eth0").Hooks; len(hooks) != 1 || hooks[0].Name != direction {
				t.Errorf("%s: %+v", direction, hooks)
			}
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("Gone", func(t *testing.T) {
		near, far := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify")
		if _, err := far.Run(testContext(t), "ip", "link", "del", "eth0"); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, p.Wait()); code != cli.ExitFailed || !strings.Contains(p.Output(), "eth0") {
			t.Errorf("exit %d: %s", code, p.Output())
		}
		noPins(t)
	})
}

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
		// Another agent takes over.
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

// testStart ends an agent at each stage of its start, in every way: it leaves nothing
// behind, or what the next one can go on with. Of two that start at once, one is refused.
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
				for !moment.comes(t, near, p) {
					select {
					case <-p.Done():
						t.Fatalf("attach ended: %v: %s", p.Wait(), p.Output())
					default: // seen as soon as it comes
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

// testPersist has the kernel go on without the agent, and the next agent take
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
			again := s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify")
			enforced("with the next agent", 15)
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
	first := s.attach(t, r.Router, "eth0", "--min-confidence", "1")
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
