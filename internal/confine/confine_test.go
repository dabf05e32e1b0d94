// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/capabilities"
)

// confinedVariable names a directory. It makes the test binary confine itself and try what
// it may not do any more.
const confinedVariable = "DPCLASS_TEST_CONFINED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(confinedVariable); dir != "" {
		if err := tryAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestConfined: in every thread, those from before and those from later, what was given up is
// refused, and what was kept works.
func TestConfined(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"read", "write", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), confinedVariable+"="+dir, "LISTENER="+listener.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if Landlock() == 0 {
		t.Log("SKIPPED: the kernel has no Landlock, so only capabilities were tested")
	}
}

// tryAll confines this process.
func tryAll(dir string) error {
	// Threads from before.
	const threads = 4
	var ready, done sync.WaitGroup
	confined := make(chan struct{})
	problems := make(chan error, 2*threads+8)
	landlock := Landlock()
	ready.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-confined
			problems <- try(dir, landlock)
		})
	}
	ready.Wait()
	root := os.Geteuid() == 0 && Has(unix.CAP_SETPCAP)
	version, err := Files(Paths{Read: []string{filepath.Join(dir, "read"), filepath.Join(dir, "read", "file"), "/proc", "/no-such-file"}, Write: []string{filepath.Join(dir, "write")}})
	if err != nil || version != landlock {
		return fmt.Errorf("Landlock %d, want %d: %w", version, landlock, err)
	}
	whole, err := Capabilities(unix.CAP_NET_ADMIN, unix.CAP_BPF)
	if err != nil || whole != root {
		return fmt.Errorf("bounding set: %v, want %v: %w", whole, root, err)
	}
	close(confined)
	for range threads { // threads from later
		done.Go(func() {
			runtime.LockOSThread()
			problems <- try(dir, landlock)
		})
	}
	done.Wait()
	close(problems)
	var all []error
	for problem := range problems {
		all = append(all, problem)
	}
	rights, err := capabilities.Of(os.Getpid())
	if err != nil || !rights.NoNewPrivs || len(rights.Capabilities) > 2 {
		all = append(all, fmt.Errorf("%+v: %w", rights, err))
	}
	return errors.Join(all...)
}

// try does what a thread of a confined process may and may not do.
func try(dir string, landlock int) error {
	var wrong []error
	refused := func(what string, err error) {
		if !errors.Is(err, fs.ErrPermission) {
			wrong = append(wrong, fmt.Errorf("%s: %w, want it refused", what, err))
		}
	}
	works := func(what string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", what, err))
		}
	}
	refused("mount", unix.Mount("none", dir, "tmpfs", 0, ""))
	refused("a namespace", unix.Unshare(unix.CLONE_NEWNS))
	refused("another owner", os.Chown(filepath.Join(dir, "write", "file"), 12345, 12345))
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	all := [2]unix.CapUserData{{Effective: 1 << unix.CAP_SYS_CHROOT, Permitted: 1 << unix.CAP_SYS_CHROOT}}
	refused("a capability", unix.Capset(&header, &all[0]))
	if landlock == 0 {
		return errors.Join(wrong...)
	}
	_, err := os.ReadFile(filepath.Join(dir, "read", "file"))
	works("read a file", err)
	_, err = os.ReadDir(filepath.Join(dir, "read"))
	works("list a directory", err)
	own := filepath.Join(dir, "write", fmt.Sprint(unix.Gettid()))
	works("make a directory", os.Mkdir(own, 0o755))
	works("write a file", os.WriteFile(filepath.Join(own, "file"), nil, 0o644))
	works("remove both", os.RemoveAll(own))

	_, err = os.ReadFile("/etc/shadow")
	refused("/etc/shadow", err)
	_, err = os.ReadFile(filepath.Join(dir, "other", "file"))
	refused("another file", err)
	_, err = os.ReadDir("/")
	refused("list a directory", err)
	refused("write to a file that may be read", os.WriteFile(filepath.Join(dir, "read", "file"), nil, 0o644))
	refused("a file elsewhere", os.WriteFile(filepath.Join(dir, "new"), nil, 0o644))
	refused("a link out", os.Symlink("/etc", filepath.Join(dir, "write", fmt.Sprint("link", unix.Gettid()))))
	refused("start a program", exec.Command("/proc/self/exe", "-test.list=x").Run())
	if landlock >= LandlockTCP {
		connection, err := net.Dial("tcp4", os.Getenv("LISTENER"))
		if err == nil {
			connection.Close()
		}
		refused("TCP connection", err)
		// net.Listen takes MPTCP, which older Landlocks do not restrict.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		works("socket", err)
		refused("TCP listener", unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
		unix.Close(fd)
	}
	if landlock >= landlockSignals {
		refused("signal to the parent", unix.Kill(os.Getppid(), syscall.Signal(0)))
		works("signal to itself", unix.Kill(os.Getpid(), syscall.Signal(0)))
	}
	return errors.Join(wrong...)
}

// TestNetns: after EnterNetns all threads are in the namespace.
func TestNetns(t *testing.T) {
	if dir := os.Getenv("DPCLASS_TEST_NETNS"); dir == "" {
		if !Has(unix.CAP_SYS_ADMIN) {
			t.Skip("SKIPPED, needs root: it makes a network namespace")
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestNetns$")
		cmd.Env = append(os.Environ(), "DPCLASS_TEST_NETNS=yes")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	made := make(chan int)
	go func() {
		runtime.LockOSThread() // and never again: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		made <- fd
	}()
	fd := <-made
	if err := EnterNetns(fd); err != nil {
		t.Fatal(err)
	}
	want, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		got, err := os.Readlink(file)
		if err == nil && got != want {
			t.Errorf("%s: %s, want %s", strings.TrimPrefix(file, "/proc/self/"), got, want)
		}
	}
}
