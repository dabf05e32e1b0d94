// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/netns"
)

// detachWait is how long a live agent may take to end by itself.
const detachWait = 10 * time.Second

// Detach takes off what Attach attached, removes the pins and closes the
// interface.
func (i *Interface) Detach() error {
	info := i.info
	errs := []error{netns.In(i.net, func() error { return remove(i.dir, &info) })}
	return errors.Join(append(errs, i.Close())...)
}

// remove takes off everything under a pin directory. The calling thread is in
// the interface's network namespace.
func remove(dir string, info *bpfInterfaceInfo) error {
	var errs []error
	if info.Tc != bpfTcKindTcTcx {
		if device, err := netlink.LinkByIndex(int(info.Ifindex)); err == nil {
			errs = append(errs, detachClsact(device, info.Tc == bpfTcKindTcOwnClsact))
		}
	}
	// The links first: a program goes with the last reference to its link.
	for _, pin := range []string{pinXDP, pinIn, pinOut} {
		errs = append(errs, unpin(filepath.Join(dir, pin)))
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("pin directory: %w", err))
	}
	for _, entry := range entries {
		errs = append(errs, unpin(filepath.Join(dir, entry.Name())))
	}
	errs = append(errs, unpin(dir))
	// Parents that are empty now; others' pins keep them.
	for parent := pinRoot; parent != bpffs; parent = filepath.Dir(parent) {
		if os.Remove(parent) != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// Detach takes dpclass off an interface of this network namespace, and ends
// its agent. It does nothing where none is attached.
func Detach(iface string) error {
	dir, err := findDir(iface)
	if errors.Is(err, ErrNotAttached) {
		return nil
	}
	if err != nil {
		return err
	}
	return detachDir(dir)
}

// DetachAll does so for every interface of every network namespace.
func DetachAll() error {
	names, err := dirs()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if err := detachDir(filepath.Join(pinRoot, name)); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// detachDir ends the agent that holds the directory and removes what is left.
func detachDir(dir string) error {
	lock, err := lockDir(dir)
	if errors.Is(err, ErrBusy) {
		lock, err = endAgent(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the agent detached
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	info, infoErr := readInfo(dir)
	if infoErr != nil || info.Tc == bpfTcKindTcTcx {
		return remove(dir, &info)
	}
	ns, err := netns.ByCookie(info.NetnsCookie)
	if err != nil {
		return err
	}
	if !ns.IsOpen() { // the namespace is gone, and its filters with it
		return remove(dir, &bpfInterfaceInfo{})
	}
	defer ns.Close()
	return netns.In(ns, func() error { return remove(dir, &info) })
}

// endAgent asks the agent to end and waits until it has. It returns the lock of
// the directory, or an error that wraps fs.ErrNotExist where the agent removed it.
func endAgent(dir string) (*os.File, error) {
	pid := 0
	for deadline := time.Now().Add(detachWait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		// An agent that has just begun does not say yet which process it is. Another detach may hold the lock, and the
		// number may be another process's by now.
		if now := agentPID(dir); now > 1 && now != pid && hasOpen(now, dir) {
			pid = now
			if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("end the agent, process %d: %w", pid, err)
			}
		}
		// Until it lets go of its other interfaces too: a second signal, for one of those, would cut its work short.
		if pid > 1 && hasOpen(pid, pinRoot) {
			continue
		}
		lock, err := lockDir(dir)
		if !errors.Is(err, ErrBusy) {
			return lock, err
		}
	}
	if pid == 0 {
		return nil, fmt.Errorf("%w, and it does not say which process it is", ErrBusy)
	}
	return nil, fmt.Errorf("the agent, process %d, did not end within %v", pid, detachWait)
}

// hasOpen tells whether the process has the directory open, or one in it, as an agent has its pins'.
func hasOpen(pid int, dir string) bool {
	fds := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(fds, entry.Name())); err == nil && (target == dir || strings.HasPrefix(target, dir+"/")) {
			return true
		}
	}
	return false
}
