// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/internal/capabilities"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/confine"
	"github.com/dpclass/dpclass/internal/onnxtest"
	"github.com/dpclass/dpclass/lab"
)

// testSandbox: the live agent has no more rights than it needs, in any thread, and what
// hostile files ask for is refused.
func testSandbox(t *testing.T, s *suite) {
	s.needLibrary(t)
	t.Run("Threads", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0")
		onlyThree(t, p.Pid())
		got := s.status(t, near, "eth0").Agent
		if got.Rights == nil || !got.Rights.NoNewPrivs || got.Landlock != confine.Landlock() {
			t.Errorf("status: %+v, %+v", got, got.Rights)
		}
		// The process that reads models may read all that root may, and nothing else.
		readers := children(t, p.Pid())
		if len(readers) != 1 {
			t.Fatalf("child processes %v, want one", readers)
		}
		for file, sets := range threadSets(t, readers[0]) {
			if want := "CapInh 0 CapPrm 4 CapEff 4 CapBnd 4 CapAmb 0 NoNewPrivs 1"; sets != want {
				t.Errorf("%s: %s, want %s", file, sets, want)
			}
		}
		// New threads of ONNX Runtime come with new models.
		s.run(t, near, "reload", "eth0").want(t, cli.ExitDone)
		onlyThree(t, p.Pid())
		// Without that process no model changes, and nothing else is lost.
		if err := unix.Kill(readers[0], unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.run(t, near, "reload", "eth0").want(t, cli.ExitFailed, "the process that reads models has ended", "attach again")
		s.run(t, near, "status", "eth0").want(t, cli.ExitDone)
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		// It ends with an agent that is killed.
		p = s.attach(t, near, "eth0")
		readers = children(t, p.Pid())
		kill(t, p)
		err := lab.Until(testContext(t), "end of the process that reads models", func() (bool, error) {
			_, err := capabilities.Of(readers[0])
			return err != nil, nil
		})
		if err != nil {
			t.Error(err)
		}
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone)
	})
	t.Run("Off", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-sandbox")
		if got := s.status(t, near, "eth0").Agent; got.Rights.NoNewPrivs || got.Landlock != 0 || len(got.Rights.Capabilities) <= len(capabilities.Needed()) {
			t.Errorf("status: %+v, %+v", got, got.Rights)
		}
		if out := s.run(t, near, "status", "eth0").out; !strings.Contains(out, "sandbox   none") || !strings.Contains(p.Output(), "--no-sandbox") {
			t.Errorf("%s%s", out, p.Output())
		}
	})
	t.Run("Unit", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		p := s.attachUnder(t, r.Router, unitCalls(t), "eth0", "--persist", "--dns", "--policy", save(t, "policy.yaml", policyRules))
		if got := s.status(t, r.Router, "eth0").Agent; !got.Rights.Seccomp || got.Landlock != confine.Landlock() {
			t.Errorf("%+v, %+v", got, got.Rights)
		}
		k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6701)
		decided := func(n uint64) {
			t.Helper()
			err := lab.Until(testContext(t), "verdicts", func() (bool, error) {
				k.ask(t, 10)
				return s.status(t, r.Router, "eth0").Agent.Verdicts > n, nil
			})
			if err != nil {
				t.Fatalf("%v: %s", err, p.Output())
			}
		}
		decided(0)
		s.run(t, r.Router, "reload", "eth0").want(t, cli.ExitDone)
		if got := s.status(t, r.Router, "eth0").Agent; got.LastError != "" || got.Reloads != 1 {
			t.Errorf("%+v", got)
		}
		if err := p.Stop(); err != nil || !strings.Contains(p.Output(), "programs, flows and policy stay") {
			t.Errorf("%v: %s", err, p.Output())
		}
		s.run(t, r.Router, "detach", "eth0").want(t, cli.ExitDone)
	})
	t.Run("NoLandlock", func(t *testing.T) {
		calls := slices.DeleteFunc(unitCalls(t), func(call int) bool {
			return slices.Contains([]int{unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF}, call)
		})
		near, _ := pair(t, false)
		p := s.attachUnder(t, near, calls, "eth0")
		onlyThree(t, p.Pid())
		if out := s.run(t, near, "status", "eth0").out; !strings.Contains(out, "no new privileges; no Landlock; seccomp filter") {
			t.Error(out)
		}
		if err := p.Stop(); err != nil || !strings.Contains(p.Output(), "the kernel has no Landlock") {
			t.Errorf("%v: %s", err, p.Output())
		}
	})
	t.Run("HostileModel", func(t *testing.T) {
		if confine.Landlock() == 0 {
			t.Skip("SKIPPED: the kernel has no Landlock")
		}
		// ONNX Runtime reads weights of a model from other files, below its working directory. For
		// a service that is the root directory.
		secret := offlineSave(t, filepath.Join(t.TempDir(), "secret"), make([]byte, 4*1500*3))
		network := onnxtest.Fitting()
		network.Outputs[0].External = strings.TrimPrefix(secret, "/")
		hostile := saveNetwork(t, network)
		near, _ := pair(t, false)
		attach := func(args ...string) *lab.Process {
			t.Helper()
			cmd, err := near.Command(testContext(t), s.binary, append([]string{"attach", "eth0", "--model", hostile}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Env, cmd.Dir = s.env(), "/"
			p, err := near.StartCommand(cmd)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := attach()
		if code := exitCode(t, p.Wait()); code != cli.ExitFailed || !strings.Contains(p.Output(), "ermission denied") {
			t.Errorf("exit %d: %s", code, p.Output())
		}
		// Without the sandbox it gets the file.
		p = attach("--no-sandbox")
		if err := lab.Until(testContext(t), "attached", func() (bool, error) { return s.run(t, near, "status", "eth0").code == cli.ExitDone, nil }); err != nil {
			t.Fatalf("%v: %s", err, p.Output())
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("HostileFiles", func(t *testing.T) {
		near, _ := pair(t, false)
		const content = "root:not-to-be-shown:19000:0:99999:7:::\n"
		secret := offlineSave(t, filepath.Join(t.TempDir(), "shadow"), []byte(content))
		if err := os.Chmod(secret, 0o640); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for _, name := range []string{"link.onnx", "link.json"} {
			if err := os.Symlink(secret, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		for name, args := range map[string][]string{
			"a list of names": {"--names", save(t, "names.txt", "stolen web v2fly:"+secret+"\n")},
			"the real one":    {"--names", save(t, "names.txt", "stolen web v2fly:/etc/shadow\n")},
			"a model":         {"--model", filepath.Join(dir, "link.onnx")},
		} {
			got := s.run(t, near, append([]string{"attach", "eth0"}, args...)...).want(t, cli.ExitFailed)
			if strings.Contains(got.out+got.err, "not-to-be") || strings.Contains(got.err, "99999") {
				t.Errorf("%s: the file is shown: %s", name, got.err)
			}
			if name != "a model" && !strings.Contains(got.err, "not everybody may read it") {
				t.Errorf("%s: %s", name, got.err)
			}
		}
	})
	t.Run("Home", func(t *testing.T) {
		// Root attaches with what a user keeps to themselves: it cannot get there with three capabilities.
		home := t.TempDir()
		library, err := os.ReadFile(s.library)
		if err != nil {
			t.Fatal(err)
		}
		inside := offlineSave(t, filepath.Join(home, filepath.Base(s.library)), library)
		network := saveNetwork(t, onnxtest.Fitting())
		for _, suffix := range []string{".onnx", ".json"} {
			from := strings.TrimSuffix(network, ".onnx") + suffix
			if err := os.Rename(from, filepath.Join(home, "test"+suffix)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(home, "test"+suffix), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{home, filepath.Join(home, "test.onnx"), filepath.Join(home, "test.json")} {
			if err := os.Chown(path, user, user); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(home, 0o700); err != nil {
			t.Fatal(err)
		}
		near, _ := pair(t, false)
		p := s.attachEnv(t, near, []string{ort.LibraryVariable + "=" + inside}, "eth0", "--model", filepath.Join(home, "test.onnx"))
		onlyThree(t, p.Pid())
		s.run(t, near, "reload", "eth0").want(t, cli.ExitDone, "test")
	})
	t.Run("Foreign", func(t *testing.T) {
		// The pins of another user: root takes them over, as it did without a sandbox.
		near, _ := pair(t, false)
		pins := filepath.Join(bpffs, "dpclass")
		if err := os.MkdirAll(pins, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(pins, user, user); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(pins) })
		p := s.attach(t, near, "eth0", "--no-classify")
		want := append(capabilities.Needed(), "CAP_DAC_OVERRIDE")
		if got := s.status(t, near, "eth0").Agent.Rights.Capabilities; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("%v, want %v", got, want)
		}
		if err := p.Stop(); err != nil || !strings.Contains(p.Output(), "CAP_DAC_OVERRIDE") {
			t.Errorf("%v: %s", err, p.Output())
		}
	})
}

// attachUnder starts an agent under what the systemd unit asks for, with these system calls,
// and waits until it is ready.
func (s *suite) attachUnder(t *testing.T, h *lab.Host, calls []int, args ...string) *lab.Process {
	t.Helper()
	var raw []byte
	for _, call := range calls {
		raw = binary.NativeEndian.AppendUint32(raw, uint32(call))
	}
	list := offlineSave(t, filepath.Join(t.TempDir(), "calls"), raw)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := h.Command(context.WithoutCancel(t.Context()), self, append([]string{s.binary, "attach"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = s.env(unitVariable + "=" + list)
	p, err := h.StartCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	err = lab.Until(testContext(t), "ready", func() (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("attach ended: %w: %s", p.Wait(), p.Output())
		default:
			return s.run(t, h, "status", args[0]).code == cli.ExitDone, nil
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// onlyThree fails unless every thread of a process has the three capabilities and no more,
// and cannot get any.
func onlyThree(t *testing.T, pid int) {
	t.Helper()
	three := fmt.Sprintf("%x", uint64(1<<unix.CAP_BPF|1<<unix.CAP_NET_ADMIN|1<<unix.CAP_PERFMON))
	want := strings.ReplaceAll("CapInh 0 CapPrm 3 CapEff 3 CapBnd 3 CapAmb 0 NoNewPrivs 1", " 3", " "+three)
	threads := threadSets(t, pid)
	if len(threads) < 2 {
		t.Errorf("process %d has %d threads", pid, len(threads))
	}
	for _, file := range slices.Sorted(maps.Keys(threads)) {
		if threads[file] != want {
			t.Errorf("%s: %s, want %s", file, threads[file], want)
		}
	}
}

// threadSets returns the sets of capabilities of each thread of a process, as in "CapInh 0".
func threadSets(t *testing.T, pid int) map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("threads of %d: %v", pid, err)
	}
	threads := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var sets []string
		for line := range bytes.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":\t")
			if strings.HasPrefix(name, "Cap") || name == "NoNewPrivs" {
				sets = append(sets, name+" "+cmp.Or(strings.TrimLeft(value, "0"), "0"))
			}
		}
		threads[file] = strings.Join(sets, " ")
	}
	return threads
}

// children returns the child processes of a process.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(word, &child); err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}
