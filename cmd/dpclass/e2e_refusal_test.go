// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

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
				// There is room next to it.
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
