// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/netns"
)

// hook is one place where a program of ours sits.
type hook struct {
	name    string // "ingress" or "egress"
	pin     string
	program string
	parent  uint32 // of a clsact filter
	attach  ebpf.AttachType
}

func hookIn(mode Mode) hook {
	if mode == Native {
		return hook{name: "ingress", pin: pinXDP, program: bpfProgDpclassXdp}
	}
	return hook{"ingress", pinIn, bpfProgDpclassIn, netlink.HANDLE_MIN_INGRESS, ebpf.AttachTCXIngress}
}

func hookOut() hook {
	return hook{"egress", pinOut, bpfProgDpclassOut, netlink.HANDLE_MIN_EGRESS, ebpf.AttachTCXEgress}
}

// errNotNative tells that the driver does not take XDP.
var errNotNative = errors.New("the driver does not take native XDP")

// attachXDP attaches in the driver, never generic and never in another program's place.
func attachXDP(program *ebpf.Program, ifindex int) (link.Link, error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: ifindex, Flags: link.XDPDriverMode})
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("%w (see \"ip link\" or \"bpftool net\"); nothing was replaced: take it off first, or use --mode tc", ErrForeignXDP)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, ebpf.ErrNotSupported):
		return nil, fmt.Errorf("%w: %w", errNotNative, err)
	}
	return nil, fmt.Errorf("attach XDP: %w", err)
}

const filterName = "dpclass"

// Priority and handle of our clsact filters. The kernel would choose a priority
// above all others; a fixed one lets us find and replace ours.
const (
	filterPriority = 0xdc
	filterHandle   = 1
)

func clsactOf(device netlink.Link) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: device.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

func filterOf(device netlink.Link, h hook) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: device.Attrs().Index, Parent: h.parent, Handle: filterHandle,
			Priority: filterPriority, Protocol: unix.ETH_P_ALL,
		},
		Name: filterName, DirectAction: true,
	}
}

// attachClsact puts a filter where the kernel has no tcx. own tells whether it
// made the qdisc.
func attachClsact(program *ebpf.Program, device netlink.Link, h hook) (own bool, err error) {
	err = netlink.QdiscAdd(clsactOf(device))
	switch {
	case err == nil:
		own = true
	case !errors.Is(err, unix.EEXIST):
		return false, fmt.Errorf("add a clsact qdisc: %w", err)
	}
	filters, err := netlink.FilterList(device, h.parent)
	if err != nil {
		return own, fmt.Errorf("list tc filters: %w", err)
	}
	for _, f := range filters {
		if f.Attrs().Priority == filterPriority && !isOurs(f) {
			return own, fmt.Errorf("a tc filter of another program has priority %d on %s of %q: take it off first",
				filterPriority, h.name, device.Attrs().Name)
		}
	}
	filter := filterOf(device, h)
	filter.Fd = program.FD()
	if err := netlink.FilterReplace(filter); err != nil {
		return own, fmt.Errorf("add a tc filter: %w", err)
	}
	return own, nil
}

func isOurs(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && strings.HasPrefix(b.Name, filterName) && b.Priority == filterPriority
}

// detachClsact takes off our filters, and the qdisc where it is ours and empty.
func detachClsact(device netlink.Link, ownQdisc bool) error {
	var errs []error
	foreign := false
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(device, parent)
		if err != nil {
			continue // no qdisc
		}
		for _, f := range filters {
			if !isOurs(f) {
				foreign = true
			} else if err := netlink.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove a tc filter: %w", err))
			}
		}
	}
	if ownQdisc && !foreign {
		if err := netlink.QdiscDel(clsactOf(device)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("remove the clsact qdisc: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Hook is the state of one hook.
type Hook struct {
	Name    string `json:"name"` // ingress or egress
	Program string `json:"program"`
	ProgID  uint32 `json:"program_id,omitempty"`
	LinkID  uint32 `json:"link_id,omitempty"`
	State   string `json:"state"` // attached, stale (the interface is gone) or none
}

// pinnedHook reads the state of a pinned link.
func pinnedHook(dir string, h hook) (Hook, error) {
	state := Hook{Name: h.name, Program: h.program, State: "none"}
	l, err := link.LoadPinnedLink(filepath.Join(dir, h.pin), nil)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("pinned link %q: %w", h.pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		if errors.Is(err, unix.ENOLINK) {
			state.State = "stale"
			return state, nil
		}
		return state, fmt.Errorf("pinned link %q: %w", h.pin, err)
	}
	state.ProgID, state.LinkID, state.State = uint32(info.Program), uint32(info.ID), "attached"
	if linkIfindex(info) == 0 {
		state.State = "stale"
	}
	return state, nil
}

func linkIfindex(info *link.Info) uint32 {
	if xdp := info.XDP(); xdp != nil {
		return xdp.Ifindex
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex
	}
	return 0
}

// hooks returns the hooks that an attached interface should have.
func hooks(info *bpfInterfaceInfo) []hook {
	var all []hook
	if info.Ingress != 0 {
		mode := TC
		if info.Mode == bpfAttachModeModeNative {
			mode = Native
		}
		all = append(all, hookIn(mode))
	}
	if info.Egress != 0 {
		all = append(all, hookOut())
	}
	return all
}

// Hooks returns the state of the interface's hooks.
func (i *Interface) Hooks() ([]Hook, error) {
	var states []Hook
	for _, h := range hooks(&i.info) {
		if h.pin != pinXDP && i.info.Tc != bpfTcKindTcTcx {
			state, err := i.clsactHook(h)
			if err != nil {
				return nil, err
			}
			states = append(states, state)
			continue
		}
		state, err := pinnedHook(i.dir, h)
		if err != nil {
			return nil, err
		}
		states = append(states, state)
	}
	return states, nil
}

func (i *Interface) clsactHook(h hook) (Hook, error) {
	state := Hook{Name: h.name, Program: h.program, State: "stale"}
	err := netns.In(i.net, func() error {
		device, err := netlink.LinkByIndex(int(i.info.Ifindex))
		if err != nil {
			return nil // gone
		}
		state.State = "none"
		filters, err := netlink.FilterList(device, h.parent)
		if err != nil {
			return nil // no qdisc any more
		}
		for _, f := range filters {
			if isOurs(f) {
				state.State, state.ProgID = "attached", uint32(f.(*netlink.BpfFilter).Id)
			}
		}
		return nil
	})
	return state, err
}
