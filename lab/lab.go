// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNotRoot is the error of [New] without root.
var ErrNotRoot = errors.New("network namespaces need root")

const (
	// prefix begins the name of every namespace (dpclab-PID-NUMBER-HOST) and of every
	// directory of a lab.
	prefix   = "dpclab-"
	netnsDir = "/run/netns"
)

// labs counts the labs of this process, for their names.
var labs atomic.Int64

// Lab is a set of hosts, wires and processes. [Lab.Close] removes them all.
type Lab struct {
	name string
	dir  string

	wires atomic.Int32 // number of wires so far

	mu     sync.Mutex
	hosts  []*Host
	closed bool
}

// New returns an empty lab. The name appears in errors only. Without root it returns
// [ErrNotRoot].
func New(name string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("lab %q: %w", name, ErrNotRoot)
	}
	if err := Clean(); err != nil {
		return nil, fmt.Errorf("lab %q: clean up after an earlier run: %w", name, err)
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	// The servers drop their privileges and must still be able to read their files.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	return &Lab{name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), labs.Add(1)), dir: dir}, nil
}

// TB is the part of testing.TB that ForTest needs.
type TB interface {
	Helper()
	Name() string
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// ForTest returns a lab and closes it when the test ends. It skips the test without
// root.
func ForTest(t TB) *Lab {
	t.Helper()
	l, err := New(t.Name())
	if errors.Is(err, ErrNotRoot) {
		t.Skipf("SKIPPED, needs root: %v", err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return l
}

// Dir returns the directory for the lab's files. Close removes it.
func (l *Lab) Dir() string { return l.dir }

// Host creates a host: a network namespace with its loopback device up.
func (l *Lab) Host(name string) (*Host, error) {
	h := &Host{lab: l, name: name, netns: l.name + "-" + name, handle: netns.None(), tasks: make(chan func()), done: make(chan struct{})}
	if err := create(h.netns); err != nil {
		return nil, fmt.Errorf("host %q: %w", name, err)
	}
	l.mu.Lock()
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()
	if err := h.init(); err != nil {
		return nil, fmt.Errorf("host %q: %w", name, err)
	}
	return h, nil
}

// create creates a named namespace. The thread that does so ends up inside it, so it
// ends with the goroutine.
func create(name string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		handle, err := netns.NewNamed(name)
		if err == nil {
			err = handle.Close()
		}
		result <- err
	}()
	return <-result
}

// Close ends the processes and removes the namespaces. Calling it again does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	hosts, closed := l.hosts, l.closed
	l.hosts, l.closed = nil, true
	l.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for _, h := range hosts {
		h.stopProcesses()
	}
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	errs = append(errs, os.RemoveAll(l.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lab %q: %w", l.name, err)
	}
	return nil
}

// Stale lists the namespaces of labs whose process is gone. A caller can use it to
// clean up inside them (dpclass --netns NAME detach) before New or Clean removes them.
func Stale() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range paths {
		if name := filepath.Base(path); !alive(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Clean removes the namespaces, processes and directories of labs whose process is
// gone. It does not touch running labs.
func Clean() error {
	var errs []error
	names, err := Stale()
	if err != nil {
		return err
	}
	for _, name := range names {
		// If the process died before the mount, this is an ordinary file.
		path := filepath.Join(netnsDir, name)
		killIn(path)
		_ = unix.Unmount(path, unix.MNT_DETACH)
		errs = append(errs, ignoreNotExist(os.Remove(path)))
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if !alive(filepath.Base(dir)) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// alive reports whether the process whose pid is in a lab's name still runs.
func alive(name string) bool {
	pid, err := strconv.Atoi(strings.Split(strings.TrimPrefix(name, prefix), "-")[0])
	return err == nil && unix.Kill(pid, 0) != unix.ESRCH
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// killIn kills every process in the namespace at path, except this one. It looks again
// until there is none, because a process may fork while it looks.
func killIn(path string) {
	for range 100 {
		if !killAll(path) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// killAll kills the processes that are in the namespace now, and reports whether there were any.
func killAll(path string) (found bool) {
	var namespace unix.Stat_t
	if unix.Stat(path, &namespace) != nil {
		return false
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil || pid == os.Getpid() {
			continue
		}
		var its unix.Stat_t
		if unix.Stat(filepath.Join(process, "ns/net"), &its) == nil && its.Ino == namespace.Ino && its.Dev == namespace.Dev {
			found = unix.Kill(pid, unix.SIGKILL) == nil || found
		}
	}
	return found
}
