// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/dpclass/dpclass/internal/netns"
)

// Reasons for which an attached interface can no longer be served.
var (
	ErrDeviceGone = errors.New("the interface was removed from its network namespace")
	ErrDeviceLeft = errors.New("the interface was moved to another network namespace")
	ErrPinsGone   = errors.New("its pins were removed by hand")
	ErrNetnsGone  = errors.New("its network namespace was deleted")
)

// Lost returns why the interface can no longer be served: one of the errors above, or nil
// if it can. err says that this is not known. An interface that somebody deleted and
// created again is another interface: Detach this attachment, then Attach again.
func (a *Attachment) Lost() (reason, err error) {
	if !a.ownsDir() || !arePinned(a.dir) {
		return ErrPinsGone, nil
	}
	here := false
	err = netns.In(a.net, func() error {
		device, err := linkByIndex(int(a.info.Ifindex))
		here = device != nil
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", a.name, err)
	}
	switch {
	case here && len(a.links) > 0 && !a.hasDevice():
		return ErrDeviceGone, nil // another interface has its number
	case here:
		return nil, nil
	case a.hasDevice():
		return ErrDeviceLeft, nil
	}
	return ErrDeviceGone, nil
}

// hasDevice reports whether the interface still exists, in whatever namespace: a link knows
// its interface anywhere.
func (a *Attachment) hasDevice() bool {
	for _, l := range a.links {
		if info, err := l.Info(); err == nil && linkIfindex(info) != 0 {
			return true
		}
	}
	return false
}

// ownsDir reports whether the path of the pins still leads to the directory that this
// process has locked.
func (a *Attachment) ownsDir() bool { return a.lock != nil && isDir(a.lock, a.dir) }
