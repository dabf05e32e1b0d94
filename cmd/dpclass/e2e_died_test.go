// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// testDied has agents end without a chance to detach, and holds that nothing of them is
// in the way of packets, unless they were to leave it there.
func testDied(t *testing.T, s *suite) {
	for _, mode := range []string{"native", "tc"} {
		for name, signal := range map[string]syscall.Signal{"SIGKILL": unix.SIGKILL, "SIGQUIT": unix.SIGQUIT} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				r := routed(t, lab.Topology{})
				p := s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify", "--policy", save(t, "policy.yaml", policyRules))
				k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6500)
				k.ask(t, 1)
				s.set(t, r.Router, k.key, "--app", "torrent")
				if got := k.ask(t, 5); got != 0 {
					t.Fatalf("%d answers through a drop rule", got)
				}
				before := ours(t)
				if err := p.Signal(signal); err != nil {
					t.Fatal(err)
				}
				<-p.Done()
				noPrograms(t, r.Router)
				if got := k.ask(t, 5); got != 5 {
					t.Errorf("%d answers of 5: the policy of an agent that died is in force", got)
				}
				// What it knew can be read, but not changed.
				if got := s.run(t, r.Router, "status", "eth0"); got.code != cli.ExitFailed || !strings.Contains(got.out, "only the tables are left") {
					t.Errorf("status: exit %d, %s%s", got.code, got.out, got.err)
				}
				if got := s.flows(t, r.Router, "eth0")[k.key]; got.App != "torrent" {
					t.Errorf("%+v", got)
				}
				s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitFailed, "eth0", "died", "dpclass attach eth0")
				// The next one begins afresh.
				next := s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify")
				if got := s.status(t, r.Router, "eth0"); got.Rules != 0 || got.Flows != 0 {
					t.Errorf("taken over: %+v", got)
				}
				before.programs = append(before.programs, ours(t).programs...)
				kill(t, next)
				s.run(t, r.Router, "detach", "eth0").want(t, cli.ExitDone, "eth0: detached")
				nothingLeft(t, before, r.Router)
			})
		}
		t.Run(mode+"/persist", func(t *testing.T) {
			near, _ := pair(t, false)
			rules := save(t, "policy.yaml", policyRules)
			kill(t, s.attach(t, near, "eth0", "--mode", mode, "--no-classify", "--persist", "--policy", rules))
			if got := s.status(t, near, "eth0"); got.Rules == 0 || got.Hooks[0].State != loader.HookAttached || got.Hooks[1].State != loader.HookAttached {
				t.Errorf("%+v", got)
			}
			// Taken over by one that is not to leave anything.
			last := s.attach(t, near, "eth0", "--mode", mode, "--no-classify")
			if got := s.status(t, near, "eth0"); got.Rules == 0 {
				t.Errorf("the policy was not taken over: %+v", got)
			}
			kill(t, last)
			noPrograms(t, near)
			s.run(t, near, "detach", "eth0").want(t, cli.ExitDone)
			noPins(t)
		})
	}
	t.Run("Stopped", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify")
		before := ours(t)
		if err := p.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone, "eth0: detached", strconv.Itoa(p.Pid()), "stopped")
		if err := p.Wait(); err != nil {
			t.Errorf("it was to end by itself: %v: %s", err, p.Output())
		}
		nothingLeft(t, before, near)
	})
	t.Run("Hung", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify", "--persist")
		before := ours(t)
		release := freeze(t, p.Pid())
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone, "eth0: detached", strconv.Itoa(p.Pid()), "killed")
		release()
		<-p.Done()
		nothingLeft(t, before, near)
	})
}

// noPrograms waits until no program is on a device of the host. The kernel takes them off
// soon after the process that had the links.
func noPrograms(t *testing.T, h *lab.Host) {
	t.Helper()
	err := lab.Until(testContext(t), "no program on a device", func() (bool, error) {
		out, err := h.Run(testContext(t), "bpftool", "-j", "net")
		return !strings.Contains(out, `"id"`) && !strings.Contains(out, "prog_id"), err
	})
	if err != nil {
		t.Error(err)
	}
}

// freeze stops a process as a debugger does: only SIGKILL ends it. release lets go of it.
func freeze(t *testing.T, pid int) (release func()) {
	t.Helper()
	frozen, done, released := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(released)
		runtime.LockOSThread() // and never unlock: a tracer is a thread, and its end lets go
		frozen <- func() error {
			tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
			if err != nil {
				return err
			}
			for _, task := range tasks {
				tid, err := strconv.Atoi(task.Name())
				if err != nil {
					return err
				}
				if err := unix.PtraceSeize(tid); err != nil {
					return err
				}
				if err := unix.PtraceInterrupt(tid); err != nil {
					return err
				}
			}
			return nil
		}()
		<-done
	}()
	if err := <-frozen; err != nil {
		t.Fatal(err)
	}
	return func() { close(done); <-released }
}
