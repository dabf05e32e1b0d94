// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
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

// How long to wait for a live agent to end by itself.
const (
	detachWait = 10 * time.Second
	detachPoll = 20 * time.Millisecond
)

// Detach detaches dpclass from an interface of the calling thread's network namespace
// and stops its agent, for which it waits up to 10 seconds. It does nothing if dpclass
// is not attached.
func Detach(ctx context.Context, iface string) error { return defaultRoot().detach(ctx, iface) }

// DetachAll detaches dpclass from every interface in every network namespace. It
// continues after an error.
func DetachAll(ctx context.Context) error { return defaultRoot().detachAll(ctx) }

func (r root) detach(ctx context.Context, iface string) error {
	dir, err := r.find(iface)
	if errors.Is(err, ErrNotAttached) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.detachDir(ctx, dir)
}

func (r root) detachAll(ctx context.Context) error {
	names, err := r.dirs()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if err := r.detachDir(ctx, filepath.Join(string(r), name)); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// detachDir stops the agent that holds the directory and removes what is left.
func (r root) detachDir(ctx context.Context, dir string) error {
	lock, err := lockDir(dir)
	if errors.Is(err, ErrBusy) {
		lock, err = r.endAgent(ctx, dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the agent detached
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	info, err := readInfo(dir)
	if err != nil || info.Tc == bpfTcKindTcTcx {
		return r.remove(dir, &info)
	}
	ns, err := netns.ByCookie(info.NetnsCookie)
	if err != nil {
		return err
	}
	if !ns.IsOpen() { // the namespace is gone, and its filters with it
		return r.remove(dir, &bpfInterfaceInfo{})
	}
	defer ns.Close()
	return netns.In(ns, func() error { return r.remove(dir, &info) })
}

// remove detaches and removes everything in a pin directory. The calling thread is in
// the interface's network namespace.
func (r root) remove(dir string, info *bpfInterfaceInfo) error {
	var errs []error
	if info.Tc != bpfTcKindTcTcx {
		if device, err := netlink.LinkByIndex(int(info.Ifindex)); err == nil {
			errs = append(errs, detachClsact(device, info.Tc == bpfTcKindTcOwnClsact))
		}
	}
	// Remove the links first: no packet must find a map missing.
	errs = append(errs, unlinkAll(dir), unpinAll(dir), r.removeDir(dir))
	return errors.Join(errs...)
}

// endAgent asks the agent to end and waits until it has. It returns the lock of the
// directory, or an error that wraps fs.ErrNotExist if the agent removed the directory.
func (r root) endAgent(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, detachWait, errors.New("it did not end in time"))
	defer cancel()
	poll := time.NewTicker(detachPoll)
	defer poll.Stop()
	pid := 0
	for {
		// An agent that has just started has not yet reported its process id. Another detach may hold the lock, and the
		// id may belong to another process by now.
		if now := agentPID(dir); now > 1 && now != pid && hasOpen(now, dir) {
			pid = now
			if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("stop the agent, process %d: %w", pid, err)
			}
		}
		// Wait until it has detached its other interfaces too: a second signal, for one of those, would cut that short.
		if pid <= 1 || !hasOpen(pid, string(r)) {
			if lock, err := lockDir(dir); !errors.Is(err, ErrBusy) {
				return lock, err
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			if pid == 0 {
				return nil, fmt.Errorf("%w, but its process id is not known: %w", ErrBusy, context.Cause(ctx))
			}
			return nil, fmt.Errorf("stop the agent, process %d: %w", pid, context.Cause(ctx))
		}
	}
}

// hasOpen reports whether the process has the directory, or one in it, open. An agent
// keeps the directory of its pins open.
func hasOpen(pid int, dir string) bool {
	fds := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(fds, entry.Name()))
		if err == nil && (target == dir || strings.HasPrefix(target, dir+"/")) {
			return true
		}
	}
	return false
}
