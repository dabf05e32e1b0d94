// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/netns"
)

// Reasons for which an attached interface can be served no longer.
var (
	ErrDeviceGone = errors.New("the interface was removed from its network namespace")
	ErrDeviceLeft = errors.New("the interface was moved to another network namespace")
	ErrPinsGone   = errors.New("its pins were removed by hand")
	ErrNetnsGone  = errors.New("its network namespace was deleted")
)

// Lost returns why the interface can be served no longer: an error that wraps one of the
// errors above, or nil if it can. err says that this is not known.
func (a *Attachment) Lost() (reason, err error) {
	if !a.holdsPins() || !arePinned(a.dir) {
		return ErrPinsGone, nil
	}
	hooks, err := a.Hooks()
	if err != nil {
		return nil, err
	}
	here := true
	err = netns.In(a.net, func() error {
		_, err := netlink.LinkByIndex(int(a.info.Ifindex))
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			here = false
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", a.name, err)
	}
	switch attached := countAttached(hooks); {
	case here && len(hooks) > 0 && allStale(hooks):
		return ErrDeviceGone, nil // another interface has its number
	case here:
		return nil, nil
	case attached > 0:
		return ErrDeviceLeft, nil
	}
	return ErrDeviceGone, nil
}

func countAttached(hooks []Hook) (n int) {
	for _, h := range hooks {
		if h.State == HookAttached {
			n++
		}
	}
	return n
}

// allStale reports whether every hook has lost its interface.
func allStale(hooks []Hook) bool {
	for _, h := range hooks {
		if h.State != HookStale {
			return false
		}
	}
	return true
}

// holdsPins reports whether the pin directory is still the one that this process holds.
func (a *Attachment) holdsPins() bool {
	return a.lock != nil && isSameDir(a.lock, a.dir)
}

// isSameDir reports whether a path leads to the open directory.
func isSameDir(open *os.File, path string) bool {
	var have, want unix.Stat_t
	err1, err2 := unix.Fstat(int(open.Fd()), &have), unix.Stat(path, &want)
	return err1 == nil && err2 == nil && have.Dev == want.Dev && have.Ino == want.Ino
}
