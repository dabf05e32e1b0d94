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

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNotRoot says that namespaces need root.
var ErrNotRoot = errors.New("network namespaces need root")

const (
	// prefix begins the name of every namespace and folder of a lab:
	// dpclab-PID-NUMBER-HOST.
	prefix   = "dpclab-"
	netnsDir = "/run/netns"
)

// labs numbers the labs of this process.
var labs atomic.Int64

// Lab is a set of hosts, wires and processes that go away together.
type Lab struct {
	name string
	dir  string

	wires atomic.Int32 // made so far

	mu     sync.Mutex
	hosts  []*Host
	closed bool
}

// New returns an empty lab. The name is for people only.
func New(name string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("lab %q: %w", name, ErrNotRoot)
	}
	if err := Clean(); err != nil {
		return nil, fmt.Errorf("lab %q: removing what an earlier run left: %w", name, err)
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	// The servers drop their privileges and still read their files.
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

// ForTest returns a lab that is closed when the test ends. Without root the
// test is skipped.
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

// Dir is a folder for the lab's files; it goes away with the lab.
func (l *Lab) Dir() string { return l.dir }

// Host makes a host: a network namespace with its loopback device up.
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

// create makes a named namespace. The thread that does it is given up.
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

// Close ends the processes and removes the namespaces. It may be called more
// than once.
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
		return fmt.Errorf("closing lab %q: %w", l.name, err)
	}
	return nil
}

// Stale lists the namespaces of labs whose process is gone, for a caller that
// has something of its own to undo in them (dpclass --netns NAME detach)
// before New or Clean removes them.
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

// Clean removes the namespaces, processes and folders of labs whose process is
// gone. Running labs are left alone.
func Clean() error {
	var errs []error
	names, err := Stale()
	if err != nil {
		return err
	}
	for _, name := range names {
		// A namespace that was made but never mounted is an ordinary file.
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

// alive tells whether the process named in a lab's name still runs.
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

// killIn ends every other process in the namespace at path.
func killIn(path string) {
	var namespace unix.Stat_t
	if unix.Stat(path, &namespace) != nil {
		return
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil || pid == os.Getpid() {
			continue
		}
		var its unix.Stat_t
		if unix.Stat(filepath.Join(process, "ns/net"), &its) == nil && its.Ino == namespace.Ino && its.Dev == namespace.Dev {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
