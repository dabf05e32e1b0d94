// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	bpflink "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/onnxtest"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// saveNetwork writes a network with three categories and its manifest, and returns its file.
func saveNetwork(t *testing.T, network onnxtest.Network) string {
	t.Helper()
	data := network.Encode()
	sum := sha256.Sum256(data)
	manifest, err := json.Marshal(map[string]any{
		"format": model.Format, "vector": 1, "name": "test", "task": []string{"category"},
		"labels": map[string]any{"category": []string{"chat", "voip", "email"}}, "sha256": hex.EncodeToString(sum[:]),
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	offlineSave(t, filepath.Join(dir, "test.json"), manifest)
	return offlineSave(t, filepath.Join(dir, "test.onnx"), data)
}

// testEnd ends agents in ways that have kept one from detaching.
func testEnd(t *testing.T, s *suite) {
	// timeout(1) sends two signals at once.
	t.Run("Twice", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify")
		before := ours(t)
		for range 20 {
			if err := p.Signal(unix.SIGTERM); err != nil {
				break // it has ended
			}
			time.Sleep(time.Millisecond)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		nothingLeft(t, before, near)
	})
	t.Run("Endless", func(t *testing.T) {
		s.needLibrary(t)
		r := routed(t, lab.Topology{})
		network := onnxtest.Fitting()
		network.Outputs[0].Endless = 0x45 // IPv4 without options
		p := s.attach(t, r.Router, "eth0", "--model", saveNetwork(t, network), "--evidence", "model")
		before := ours(t)
		k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6600)
		k.ask(t, 1)
		if err := lab.Until(testContext(t), "samples", func() (bool, error) { return s.status(t, r.Router, "eth0").Agent.Samples > 0, nil }); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
		case <-testContext(t).Done():
			t.Fatalf("the agent does not end: %s", p.Output())
		}
		if err := p.Wait(); err != nil || !strings.Contains(p.Output(), "detached") {
			t.Errorf("%v: %s", err, p.Output())
		}
		nothingLeft(t, before, r.Router)
	})
	t.Run("Terminal", func(t *testing.T) {
		near, _ := pair(t, false)
		terminal, inside := openTerminal(t)
		cmd := s.attachCommand(t, near, "eth0", "--no-classify")
		cmd.Stdin = inside
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
		p := startCommand(t, near, cmd)
		if err := p.WaitOutput(testContext(t), "attached"); err != nil {
			t.Fatal(err)
		}
		before := ours(t)
		if err := errors.Join(inside.Close(), terminal.Close()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
		case <-testContext(t).Done():
			t.Fatalf("the agent survives its terminal: %s", p.Output())
		}
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		nothingLeft(t, before, near)
	})
	t.Run("Service", func(t *testing.T) {
		near, _ := pair(t, false)
		cmd := s.attachCommand(t, near, "eth0", "--no-classify")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL} // without a terminal
		p := startCommand(t, near, cmd)
		if err := p.WaitOutput(testContext(t), "attached"); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
		err := lab.Until(testContext(t), "a reload", func() (bool, error) {
			got := s.status(t, near, "eth0")
			return got.Agent != nil && got.Agent.Reloads == 1 && strings.Contains(got.Agent.ReloadError, "does not classify"), nil
		})
		if err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		// The verb says the same, and fails.
		s.run(t, near, "reload", "eth0").want(t, cli.ExitFailed, "does not classify")
		if got := s.status(t, near, "eth0"); !got.Ready || got.Agent.Reloads != 2 {
			t.Errorf("%+v", got.Agent)
		}
	})
}

func (s *suite) attachCommand(t *testing.T, h *lab.Host, args ...string) *exec.Cmd {
	t.Helper()
	cmd, err := h.Command(context.WithoutCancel(t.Context()), s.binary, append([]string{"attach"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = s.env()
	return cmd
}

func startCommand(t *testing.T, h *lab.Host, cmd *exec.Cmd) *lab.Process {
	t.Helper()
	p, err := h.StartCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// openTerminal makes a terminal: the end of its window, and that of the programs in it.
func openTerminal(t *testing.T) (window, inside *os.File) {
	t.Helper()
	window, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { window.Close() })
	if err := unix.IoctlSetPointerInt(int(window.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(window.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if inside, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	return window, inside
}

// testHung stops an agent: status says so, until it continues.
func testHung(t *testing.T, s *suite) {
	near, _ := pair(t, false)
	p := s.attach(t, near, "eth0", "--no-classify")
	for _, step := range []struct {
		signal      syscall.Signal
		state, says string
	}{{unix.SIGSTOP, loader.StateHung, "has not reported"}, {unix.SIGCONT, loader.StateReady, "ready"}} {
		if err := p.Signal(step.signal); err != nil {
			t.Fatal(err)
		}
		if err := lab.Until(testContext(t), step.state, func() (bool, error) { return s.status(t, near, "eth0").State == step.state, nil }); err != nil {
			t.Error(err)
		}
		if got := s.run(t, near, "status", "eth0"); (got.code == cli.ExitDone) != (step.state == loader.StateReady) || !strings.Contains(got.out, step.says) {
			t.Errorf("%s: exit %d: %s%s", step.state, got.code, got.out, got.err)
		}
	}
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := lab.Until(testContext(t), "hung", func() (bool, error) { return s.status(t, near, "eth0").State == loader.StateHung, nil }); err != nil {
		t.Error(err)
	}
	s.run(t, near, "reload", "eth0").want(t, cli.ExitFailed, "hangs or was stopped")
	if err := p.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// testAttaching looks at an interface while it is attached: it is not attached, attaching or
// ready, and never broken.
func testAttaching(t *testing.T, s *suite) {
	near, _ := pair(t, false)
	seen := map[string]int{}
	for range 5 {
		p := s.startAttach(t, near, nil, "eth0", "--no-classify")
		ctx := testContext(t)
		for state := ""; state != loader.StateReady; {
			err := near.Do(func() error {
				i, err := loader.Open("eth0")
				switch {
				case errors.Is(err, loader.ErrNotAttached):
					state = "not attached"
					return nil
				case errors.Is(err, loader.ErrAttaching):
					state = "ErrAttaching"
					return nil
				case err != nil:
					return err
				}
				status, err := i.Status()
				state = status.State
				return errors.Join(err, i.Close())
			})
			switch {
			case err != nil:
				t.Fatal(err)
			case ctx.Err() != nil:
				t.Fatalf("%v: %s", seen, p.Output())
			case state == loader.StateAgent, state == loader.StateHung, state == loader.StateHook, state == loader.StateFailing:
				t.Errorf("%q during attach", state)
			}
			seen[state]++
		}
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
	}
	if seen[loader.StateAttaching]+seen["ErrAttaching"] == 0 {
		t.Errorf("seen %v", seen)
	}
}

// testRecreated takes interfaces from an agent in every way. It serves the others, and the
// lost one again if that returns.
func testRecreated(t *testing.T, s *suite) {
	near, far := pair(t, false)
	ctx := testContext(t)
	ip := func(args ...string) {
		t.Helper()
		if out, err := near.Run(ctx, "ip", args...); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	make7 := func() {
		t.Helper()
		ip("link", "add", "tun7", "type", "veth", "peer", "name", "tp")
		ip("link", "set", "tp", "up")
		ip("link", "set", "tun7", "up")
	}
	ready := func(p *lab.Process) {
		t.Helper()
		err := lab.Until(ctx, "tun7 is ready", func() (bool, error) {
			return s.run(t, near, "status", "tun7").code == cli.ExitDone, nil
		})
		if err != nil {
			t.Fatalf("%v: %s", err, p.Output())
		}
		got := s.status(t, near, "tun7")
		if got.Rules != 3 || got.Agent.PID != p.Pid() || len(got.Hooks) != 2 {
			t.Errorf("tun7 returned as %+v", got)
		}
		s.run(t, near, "policy", "show", "tun7").want(t, cli.ExitDone, "app: intranet")
	}
	others := func(p *lab.Process) {
		t.Helper()
		if got := s.status(t, near, "eth0"); !got.Ready || got.Rules != 3 || got.Agent.PID != p.Pid() {
			t.Errorf("eth0: %+v", got)
		}
	}
	rules := save(t, "policy.yaml", `version: 1
rules:
  - match: {category: voip}
    action: {drop: true}
  - match: {category: chat}
    action: {dscp: EF}
  - match: {app: intranet}
    action: {dscp: CS1}
`)
	// In the sandbox, the agent cannot read the names files any more.
	catalogue := t.TempDir()
	t.Setenv(namesDirVariable, catalogue)
	if err := os.WriteFile(filepath.Join(catalogue, "site"), []byte("intranet web intranet.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	make7()
	p := s.attach(t, near, "eth0", "tun7", "--mode", "tc", "--no-classify")
	for _, iface := range []string{"eth0", "tun7"} {
		s.run(t, near, "policy", "apply", iface, rules).want(t, cli.ExitDone)
	}
	before := ours(t)

	ip("link", "del", "tun7")
	make7()
	ready(p)
	others(p)
	// In another namespace, and back under the same name.
	ip("link", "set", "tun7", "netns", far.Netns())
	if err := p.WaitOutput(ctx, "moved to another network namespace"); err != nil {
		if err := p.WaitOutput(ctx, "let go of an interface"); err != nil {
			t.Error(err)
		}
	}
	others(p)
	s.run(t, near, "status", "tun7").want(t, cli.ExitFailed, "not attached")
	for _, args := range [][]string{{"link", "set", "tun7", "netns", near.Netns()}} {
		if out, err := far.Run(ctx, "ip", args...); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("link", "set", "tun7", "up")
	ready(p)
	others(p)
	// Pins removed by hand: it is detached, and not attached again.
	dirs, err := filepath.Glob(filepath.Join(bpffs, "dpclass", "v*", "tun7@*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%v, %v", dirs, err)
	}
	if err := os.RemoveAll(dirs[0]); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitOutput(ctx, "pins were removed by hand"); err != nil {
		t.Error(err)
	}
	err = lab.Until(ctx, "no program on tun7", func() (bool, error) {
		out, err := near.Run(ctx, "ip", "-details", "link", "show", "dev", "tun7")
		return !strings.Contains(out, "xdp") && len(tcxPrograms(t, near, "tun7")) == 0, err
	})
	if err != nil {
		t.Error(err)
	}
	others(p)
	// The last one: the agent ends, and says why.
	if dirs, err = filepath.Glob(filepath.Join(bpffs, "dpclass", "v*", "eth0@*", "flows")); err != nil || len(dirs) != 1 {
		t.Fatalf("%v, %v", dirs, err)
	}
	if err := os.Remove(dirs[0]); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, p.Wait()); code != cli.ExitFailed || !strings.Contains(p.Output(), "no interface is left") {
		t.Errorf("exit %d: %s", code, p.Output())
	}
	nothingLeft(t, before, near)
}

// tcxPrograms returns the ids of the tcx programs of an interface.
func tcxPrograms(t *testing.T, h *lab.Host, iface string) (ids []uint32) {
	t.Helper()
	link, err := h.Link(iface)
	if err != nil {
		t.Fatal(err)
	}
	err = h.Do(func() error {
		for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := bpflink.QueryPrograms(bpflink.QueryOptions{Target: link.Attrs().Index, Attach: attach})
			if err != nil {
				return err
			}
			for _, p := range result.Programs {
				ids = append(ids, uint32(p.ID))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// testNetnsDeleted deletes the network namespace that an agent serves from outside.
func testNetnsDeleted(t *testing.T, s *suite) {
	h := alone(t)
	name := fmt.Sprintf("dpclass-gone-%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := h.Run(testContext(t), "ip", args...); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("netns", "add", name)
	deleted := false
	t.Cleanup(func() {
		if !deleted {
			_ = exec.Command("ip", "netns", "del", name).Run() // the test has failed already
		}
	})
	ip("-n", name, "link", "add", "va", "type", "veth", "peer", "name", "vb")
	ip("-n", name, "link", "set", "va", "up")
	p := s.startAttach(t, h, nil, "va", "--no-classify", "--netns", name)
	if err := p.WaitOutput(testContext(t), "attached"); err != nil {
		t.Fatal(err)
	}
	before := ours(t)
	ip("netns", "del", name)
	deleted = true
	select {
	case <-p.Done():
	case <-testContext(t).Done():
		t.Fatalf("the agent serves a deleted namespace: %s", p.Output())
	}
	if code := exitCode(t, p.Wait()); code != cli.ExitFailed || !strings.Contains(p.Output(), "namespace was deleted") {
		t.Errorf("exit %d: %s", code, p.Output())
	}
	nothingLeft(t, before)
}
