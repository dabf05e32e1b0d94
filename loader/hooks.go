// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// Names of the pinned links.
const (
	pinXDP = "link_xdp"
	pinIn  = "link_in"
	pinOut = "link_out"
)

// hook is a place for one of the programs.
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

// hooksOf returns the hooks that an attached interface should have.
func hooksOf(info *bpfInterfaceInfo) []hook {
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

// placer attaches the program of a hook with a pinned link.
type placer func(h hook, device netlink.Link) error

// attachHooks attaches the programs.
func (a *Attachment) attachHooks(ctx context.Context, device netlink.Link, cfg *Config, place placer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mode := cfg.Mode
	if cfg.Ingress && mode != TC {
		err := place(hookIn(Native), device)
		switch {
		case err == nil:
			mode = Native
		case errors.Is(err, errNotNative) && mode == Auto:
			a.log.Debug("no native XDP", "iface", a.name, "error", err)
			mode = TC
		default:
			return err
		}
	}
	a.info.Mode = bpfAttachModeModeTc
	if mode == Native {
		a.info.Mode = bpfAttachModeModeNative
		if cfg.VLAN && stripsTags(device) {
			a.log.Warn("the device strips VLAN tags before XDP sees them: VLAN ids of received packets are 0 in the 5-tuple",
				"iface", a.name, "do", "ethtool -K "+a.name+" rxvlan off, or --mode tc")
		}
	}
	for _, h := range hooksOf(&a.info) {
		if h.pin == pinXDP {
			continue
		}
		if err := a.attachTC(h, device, cfg.Clsact, place); err != nil {
			return err
		}
	}
	return nil
}

// attachTC attaches with tcx, or with a clsact filter if the kernel has no tcx.
func (a *Attachment) attachTC(h hook, device netlink.Link, clsact bool, place placer) error {
	if !clsact {
		err := place(h, device)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("attach to tcx %s: %w", h.name, err)
		}
	}
	own, err := attachClsact(a.collection.Programs[h.program], device, h)
	if own {
		a.info.Tc = bpfTcKindTcOwnClsact
	} else if a.info.Tc == bpfTcKindTcTcx {
		a.info.Tc = bpfTcKindTcClsact
	}
	return err
}

// newLink attaches with a new link and pins it.
func (a *Attachment) newLink(h hook, device netlink.Link) (err error) {
	program := a.collection.Programs[h.program]
	var l link.Link
	if h.pin == pinXDP {
		l, err = attachXDP(program, device.Attrs().Index)
	} else {
		l, err = link.AttachTCX(link.TCXOptions{Program: program, Attach: h.attach, Interface: device.Attrs().Index})
	}
	if err != nil {
		return err
	}
	a.links = append(a.links, l)
	if err := l.Pin(filepath.Join(a.dir, h.pin)); err != nil {
		return fmt.Errorf("pin the link of %s: %w", h.name, err)
	}
	a.made = append(a.made, filepath.Join(a.dir, h.pin))
	return nil
}

// updateLink puts the program into the pinned link of an earlier process. A link
// that is missing or stale is replaced by a new one.
func (a *Attachment) updateLink(h hook, device netlink.Link) error {
	pin := filepath.Join(a.dir, h.pin)
	if state, err := pinnedHook(a.dir, h); err != nil || state.State != HookAttached {
		if err := unpin(pin); err != nil {
			return err
		}
		return a.newLink(h, device)
	}
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("pinned link %q: %w", h.pin, err)
	}
	a.links = append(a.links, l)
	if err := l.Update(a.collection.Programs[h.program]); err != nil {
		return fmt.Errorf("put the program into %s: %w", h.name, err)
	}
	return nil
}

// dropOthers detaches what an earlier process attached, according to its info, and this
// process did not take over.
func (a *Attachment) dropOthers(device netlink.Link, earlier *bpfInterfaceInfo) error {
	links := map[string]bool{pinXDP: true, pinIn: true, pinOut: true}
	filters := map[uint32]bool{netlink.HANDLE_MIN_INGRESS: true, netlink.HANDLE_MIN_EGRESS: true}
	for _, h := range hooksOf(&a.info) {
		if h.pin == pinXDP || a.info.Tc == bpfTcKindTcTcx {
			delete(links, h.pin)
		} else {
			delete(filters, h.parent)
		}
	}
	for pin := range links {
		if err := unlink(filepath.Join(a.dir, pin)); err != nil {
			return err
		}
	}
	if earlier.Tc == bpfTcKindTcTcx {
		return nil
	}
	for parent := range filters {
		if err := removeFilters(device, parent); err != nil {
			return err
		}
	}
	if earlier.Tc == bpfTcKindTcOwnClsact && a.info.Tc == bpfTcKindTcTcx {
		return removeQdisc(device)
	}
	return nil
}

// undo takes off what this process attached beyond what the earlier one had, as its
// info says.
func (a *Attachment) undo(device netlink.Link, earlier *bpfInterfaceInfo) error {
	var errs []error
	for _, pin := range a.made {
		errs = append(errs, unlink(pin))
	}
	filters := map[uint32]bool{netlink.HANDLE_MIN_INGRESS: true, netlink.HANDLE_MIN_EGRESS: true}
	if earlier.Tc != bpfTcKindTcTcx {
		for _, h := range hooksOf(earlier) {
			delete(filters, h.parent)
		}
	}
	for parent := range filters {
		errs = append(errs, removeFilters(device, parent))
	}
	if a.info.Tc == bpfTcKindTcOwnClsact && earlier.Tc != bpfTcKindTcOwnClsact {
		errs = append(errs, removeQdisc(device))
	}
	return errors.Join(errs...)
}

// errNotNative says that the driver does not support XDP.
var errNotNative = errors.New("the driver does not support native XDP")

// attachXDP attaches in the driver. It never uses generic XDP or replaces another program.
func attachXDP(program *ebpf.Program, ifindex int) (link.Link, error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: ifindex, Flags: link.XDPDriverMode})
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return nil, fault.Advise(ErrForeignXDP, `detach it first (see "ip link" or "bpftool net"), or use --mode tc; nothing was replaced`)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, ebpf.ErrNotSupported):
		return nil, fmt.Errorf("%w: %w", errNotNative, err)
	}
	return nil, fmt.Errorf("attach XDP: %w", err)
}

// States of a hook.
const (
	HookAttached = "attached"
	HookStale    = "stale" // the interface is gone
	HookNone     = "none"  // nothing is attached
)

// Hook is the state of one hook. ProgID and LinkID are the kernel's ids, 0 if there is
// none.
type Hook struct {
	Name    string `json:"name"` // ingress or egress
	Program string `json:"program"`
	ProgID  uint32 `json:"prog_id"`
	LinkID  uint32 `json:"link_id"`
	State   string `json:"state"` // HookAttached, HookStale or HookNone
}

// Hooks returns the state of the interface's hooks, ingress first.
func (p *Pins) Hooks() ([]Hook, error) {
	var states []Hook
	for _, h := range hooksOf(&p.info) {
		read := func() (Hook, error) { return pinnedHook(p.dir, h) }
		if h.pin != pinXDP && p.info.Tc != bpfTcKindTcTcx {
			read = func() (Hook, error) { return p.clsactHook(h) }
		}
		state, err := read()
		if err != nil {
			return nil, err
		}
		states = append(states, state)
	}
	return states, nil
}

// pinnedHook reads the state of a pinned link.
func pinnedHook(dir string, h hook) (Hook, error) {
	state := Hook{Name: h.name, Program: h.program, State: HookNone}
	l, err := link.LoadPinnedLink(filepath.Join(dir, h.pin), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("pinned link %q: %w", h.pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if errors.Is(err, unix.ENOLINK) {
		state.State = HookStale
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("pinned link %q: %w", h.pin, err)
	}
	state.ProgID, state.LinkID, state.State = uint32(info.Program), uint32(info.ID), HookAttached
	if linkIfindex(info) == 0 {
		state.State = HookStale
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

// clsactHook reads the state of a clsact filter.
func (p *Pins) clsactHook(h hook) (Hook, error) {
	state := Hook{Name: h.name, Program: h.program, State: HookStale}
	err := netns.In(p.net, func() error {
		device, err := netlink.LinkByIndex(int(p.info.Ifindex))
		if err != nil {
			return nil // the interface is gone
		}
		state.State = HookNone
		filters, err := netlink.FilterList(device, h.parent)
		if err != nil {
			return nil // the qdisc is gone
		}
		for _, f := range filters {
			if isOurs(f) {
				state.State, state.ProgID = HookAttached, uint32(f.(*netlink.BpfFilter).Id)
			}
		}
		return nil
	})
	return state, err
}

// unlink detaches a program from its hook, and removes the pin of its link. Removing the
// pin alone is not enough: the kernel detaches the program some time after the last
// reference is gone.
func unlink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return unpin(pin) // there is none, or it is not a link
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, unix.EOPNOTSUPP) {
		return errors.Join(fmt.Errorf("detach link %q: %w", filepath.Base(pin), err), unpin(pin))
	}
	return unpin(pin)
}

// unlinkAll takes off every pinned link of a directory.
func unlinkAll(dir string) error {
	var errs []error
	for _, pin := range []string{pinXDP, pinIn, pinOut} {
		errs = append(errs, unlink(filepath.Join(dir, pin)))
	}
	return errors.Join(errs...)
}
