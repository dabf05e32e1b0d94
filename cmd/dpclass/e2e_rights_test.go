// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// user is an unprivileged user: nobody.
const user = 65534

// testRights has another user than root do everything with the capabilities that the
// documentation names, and no others.
func testRights(t *testing.T, s *suite) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	near, _ := pair(t, false)
	// Others may run the binary, but not read root's home.
	for dir := filepath.Dir(s.binary); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	home := t.TempDir()
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	command := func(capabilities string, args ...string) *exec.Cmd {
		t.Helper()
		cmd, err := near.Command(testContext(t), "setpriv", append([]string{
			"--reuid=" + strconv.Itoa(user), "--regid=" + strconv.Itoa(user), "--clear-groups", "--bounding-set=-all," + capabilities,
			"--inh-caps=-all," + capabilities, "--ambient-caps=-all," + capabilities, s.binary,
		}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = s.env("HOME="+home, "XDG_CONFIG_HOME=")
		return cmd
	}
	run := func(capabilities string, args ...string) result {
		t.Helper()
		cmd := command(capabilities, args...)
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		p, err := near.StartCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return result{exitCode(t, p.Wait()), out.String(), errOut.String()}
	}
	const three = "+bpf,+net_admin,+perfmon"

	// systemd and dpclass itself mount the file system for root alone.
	run(three, "attach", "eth0", "--no-classify").want(t, cli.ExitFailed, bpffs, "permission denied", "install -d")
	if got := run(three, "doctor"); got.code != cli.ExitFailed || !strings.Contains(got.out, "fail bpffs") || !strings.Contains(got.out, "install -d") {
		t.Errorf("doctor: %+v", got)
	}
	if err := os.Chmod(bpffs, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(bpffs, 0o700); err != nil {
			t.Error(err)
		}
		os.Remove(filepath.Join(bpffs, "dpclass"))
	})
	if err := os.Mkdir(filepath.Join(bpffs, "dpclass"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(bpffs, "dpclass"), user, user); err != nil {
		t.Fatal(err)
	}
	left := func() {
		t.Helper()
		if entries, err := os.ReadDir(filepath.Join(bpffs, "dpclass")); err != nil || len(entries) > 0 {
			t.Errorf("left: %v, %v", entries, err)
		}
		noPrograms(t, near)
	}
	if got := run(three, "doctor"); !strings.Contains(got.out, "ok   bpffs") {
		t.Errorf("doctor: %+v", got)
	}
	for lacking, have := range map[string]string{
		"CAP_BPF": "+net_admin,+perfmon", "CAP_NET_ADMIN": "+bpf,+perfmon", "CAP_PERFMON": "+bpf,+net_admin",
	} {
		run(have, "attach", "eth0", "--no-classify").want(t, cli.ExitFailed, "missing "+lacking)
		left()
	}
	rules := save(t, "policy.yaml", policyRules)
	for dir := filepath.Dir(rules); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []string{"native", "tc"} {
		attach := func(args ...string) *lab.Process {
			t.Helper()
			p, err := near.StartCommand(command(three, append([]string{"attach", "eth0", "--no-classify", "--mode", mode, "--policy", rules}, args...)...))
			if err != nil {
				t.Fatal(err)
			}
			err = lab.Until(testContext(t), "ready", func() (bool, error) {
				select {
				case <-p.Done():
					t.Fatalf("attach ended: %s", p.Output())
				default:
				}
				return run(three, "status", "eth0").code == cli.ExitDone, nil
			})
			if err != nil {
				t.Fatalf("%v: %s", err, p.Output())
			}
			return p
		}
		p := attach()
		s.run(t, near, "status", "eth0").want(t, cli.ExitDone) // root finds the same pins
		run(three, "flows", "eth0").want(t, cli.ExitDone)
		run(three, "policy", "apply", "eth0", rules).want(t, cli.ExitDone)
		if err := p.Stop(); err != nil || !strings.Contains(p.Output(), "detached") {
			t.Errorf("%v: %s", err, p.Output())
		}
		left()
		p = attach()
		run(three, "detach", "eth0").want(t, cli.ExitDone, "eth0: detached")
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		left()
		// Left by an agent of root, and then by this user's.
		if err := attach("--persist").Stop(); err != nil {
			t.Error(err)
		}
		run(three, "detach", "--all").want(t, cli.ExitDone, "eth0: detached")
		left()
	}
	const record = three + ",+net_raw,+sys_ptrace,+dac_read_search"
	if err := os.Chown(home, user, user); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(home, "recorded")
	run(three, "record", "eth0", "--out", out).want(t, cli.ExitFailed, "CAP_NET_RAW")
	run("+net_raw", "record", "eth0", "--out", out).want(t, cli.ExitFailed, "CAP_BPF")
	run("+net_raw", "record", "eth0", "--out", out, "--by", "name", "--duration", "10ms").want(t, cli.ExitDone)
	if got := run(record, "record", "eth0", "--out", out, "--duration", "10ms").want(t, cli.ExitDone); strings.Contains(got.err, "not all sockets") {
		t.Errorf("older sockets are not known: %s", got.err)
	}
	s.attach(t, near, "eth0", "--no-classify")
	run(three, "detach", "eth0").want(t, cli.ExitFailed, "permission denied")
	s.run(t, near, "status", "eth0").want(t, cli.ExitDone)
}
