// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// InNetns runs fn with the calling goroutine's thread in the network namespace
// that "ip netns" knows by the name; "" is the own one. Files and pins stay
// those of the caller.
func InNetns(name string, fn func() error) error {
	if name == "" {
		return fn()
	}
	ns, err := netns.GetFromName(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network namespace %q: there is none of that name (see \"ip netns list\")", name)
	}
	if err != nil {
		return fmt.Errorf("network namespace %q: %w", name, err)
	}
	defer ns.Close()
	return inHandle(ns, fn)
}

func inHandle(ns netns.NsHandle, fn func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("network namespace: %w", err)
	}
	defer own.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	// A thread that cannot go back is not given back: it ends with the goroutine.
	defer func() {
		if netns.Set(own) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// deviceByName finds an interface of the calling thread's namespace.
func deviceByName(iface string) (netlink.Link, error) {
	device, err := netlink.LinkByName(iface)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("interface %q: there is none of that name (see \"ip link\"; in another namespace: --netns NAME)", iface)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", iface, err)
	}
	return device, nil
}
