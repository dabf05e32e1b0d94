// SPDX-License-Identifier: Apache-2.0

// Package netns runs functions in other network namespaces. In the kernel every thread
// has its own current namespace.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
)

// Handle is an open network namespace.
type Handle = netns.NsHandle

// None returns a handle that is not open.
func None() Handle { return netns.None() }

// Current opens the calling thread's namespace.
func Current() (Handle, error) { return netns.Get() }

// InNamed runs fn in the network namespace that "ip netns" lists under the name, or in
// the current one if the name is "". fn runs on the calling goroutine; files and pins
// stay the same.
func InNamed(name string, fn func() error) error {
	if name == "" {
		return fn()
	}
	ns, err := netns.GetFromName(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Advise(fmt.Errorf("network namespace %q does not exist", name), "list the namespaces: ip netns list")
	}
	if err != nil {
		return fmt.Errorf("network namespace %q: %w", name, err)
	}
	defer ns.Close()
	return In(ns, fn)
}

// In runs fn in the namespace, on the calling goroutine. Files and pins stay the same. To
// enter another namespace than the thread's own takes CAP_SYS_ADMIN.
func In(ns Handle, fn func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace: %w", err)
	}
	defer own.Close()
	if own.Equal(ns) {
		defer runtime.UnlockOSThread()
		return fn()
	}
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		err = fmt.Errorf("enter the network namespace: %w", err)
		if errors.Is(err, unix.EPERM) {
			err = fault.Advise(err, "to work in another network namespace run as root, or with CAP_SYS_ADMIN")
		}
		return err
	}
	// If the thread cannot switch back, it stays locked and ends with the goroutine.
	defer func() {
		if netns.Set(own) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// Cookie returns the cookie of the calling thread's network namespace.
func Cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket to read the namespace's cookie: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read the cookie of the network namespace (SO_NETNS_COOKIE, needs kernel 5.14): %w", err)
	}
	return cookie, nil
}

// IsFirst reports whether the calling thread is in pid 1's network namespace.
func IsFirst() bool {
	// Not by /proc/1/ns/net, which only a process with all capabilities of pid 1 can read. Every namespace has files of its
	// own in /proc/PID/net, with inode numbers of their own.
	var own, first unix.Stat_t
	err1, err2 := unix.Stat("/proc/thread-self/net/dev", &own), unix.Stat("/proc/1/net/dev", &first)
	return err1 == nil && err2 == nil && own.Dev == first.Dev && own.Ino == first.Ino
}

// ByCookie finds the network namespace with a cookie: the current one, or one that
// "ip netns" lists. If there is none, it returns a handle that is not open, and an error
// if there are namespaces that it may not enter.
func ByCookie(cookie uint64) (Handle, error) {
	var denied error
	if own, err := Cookie(); err == nil && own == cookie {
		return netns.Get()
	}
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return None(), fmt.Errorf("list network namespaces: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		ns, err := netns.GetFromName(entry.Name())
		if err != nil {
			continue
		}
		var found uint64
		err = In(ns, func() (err error) { found, err = Cookie(); return err })
		if err == nil && found == cookie {
			return ns, nil
		}
		ns.Close()
		if errors.Is(err, unix.EPERM) {
			denied = err
		}
	}
	return None(), denied
}
