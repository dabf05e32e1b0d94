// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

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
	place   int    // index in bpfInterfaceInfo.Programs and Links
	pin     string
	program string
	parent  uint32 // of a clsact filter
	attach  ebpf.AttachType
}

func hookIn(mode Mode) hook {
	if mode == Native {
		return hook{name: "ingress", place: 0, pin: pinXDP, program: bpfProgDpclassXdp}
	}
	return hook{"ingress", 0, pinIn, bpfProgDpclassIn, netlink.HANDLE_MIN_INGRESS, ebpf.AttachTCXIngress}
}

func hookOut() hook {
	return hook{"egress", 1, pinOut, bpfProgDpclassOut, netlink.HANDLE_MIN_EGRESS, ebpf.AttachTCXEgress}
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

// general is what the name of a program of the general way adds to that of the fast one.
const general = "_all"

// programAt returns the program for a hook.
func (a *Attachment) programAt(h hook) *ebpf.Program {
	if a.info.Fast == 0 {
		return a.collection.Programs[h.program+general]
	}
	return a.collection.Programs[h.program]
}

// fillGeneral tells the fast programs which ones they go on with.
func (a *Attachment) fillGeneral() error {
	for name, m := range map[string]struct {
		*ebpf.Map
		slot uint32
	}{
		bpfProgDpclassXdp: {a.maps.GeneralXdp, 0},
		bpfProgDpclassIn:  {a.maps.GeneralTc, uint32(bpfDirectionDirectionIn)},
		bpfProgDpclassOut: {a.maps.GeneralTc, uint32(bpfDirectionDirectionOut)},
	} {
		if err := m.Put(m.slot, a.collection.Programs[name+general]); err != nil {
			return fmt.Errorf("program of the general way for %q: %w", name, err)
		}
	}
	return nil
}

// placer attaches the program of a hook with a link.
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
	own, err := addClsact(device)
	if err != nil {
		return err
	}
	if own {
		a.info.Tc = bpfTcKindTcOwnClsact
	} else if a.info.Tc == bpfTcKindTcTcx {
		a.info.Tc = bpfTcKindTcClsact
	}
	// A filter stays when the process ends, and the next one has to know of it.
	if err := a.record(); err != nil {
		return err
	}
	return attachClsact(a.programAt(h), device, h)
}

// newLink attaches with a new link, and pins it if it is to outlive the process.
func (a *Attachment) newLink(h hook, device netlink.Link) (err error) {
	program := a.programAt(h)
	var l link.Link
	if h.pin == pinXDP {
		l, err = attachXDP(program, device.Attrs().Index)
	} else {
		l, err = link.AttachTCX(link.TCXOptions{Program: program, Attach: h.attach, Interface: device.Attrs().Index})
	}
	if err != nil {
		return err
	}
	a.links = append(a.links, heldLink{l, h, true})
	if a.info.Persist == 0 {
		return nil
	}
	if err := l.Pin(filepath.Join(a.dir, h.pin)); err != nil {
		return fmt.Errorf("pin the link of %s: %w", h.name, err)
	}
	return nil
}

// updateLink puts the program into the pinned link of an earlier process. A link
// that is missing or stale is replaced by a new one.
func (a *Attachment) updateLink(h hook, device netlink.Link) error {
	pin := filepath.Join(a.dir, h.pin)
	l, err := link.LoadPinnedLink(pin, nil)
	if err == nil {
		info, err := l.Info()
		if err != nil || int(linkIfindex(info)) != device.Attrs().Index {
			l.Close()
			l = nil
		}
	}
	if l == nil {
		if err := unlink(pin); err != nil {
			return err
		}
		return a.newLink(h, device)
	}
	a.links = append(a.links, heldLink{l, h, false})
	if err := l.Update(a.programAt(h)); err != nil {
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
	restored := *earlier
	for _, l := range a.links {
		if l.made {
			errs = append(errs, drop(l.Link, l.hook.name), unpin(filepath.Join(a.dir, l.hook.pin)))
			continue
		}
		id, err := programID(a.programAt(l.hook))
		restored.Programs[l.hook.place] = uint32(id)
		errs = append(errs, err)
	}
	errs = append(errs, a.maps.Interface.Put(uint32(0), &restored))
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
	a.info = restored // so that Close leaves on what the earlier process left on
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

// Hooks returns the state of the interface's hooks, ingress first. It asks the interface
// what is attached to it: only the process that attached has the links.
func (p *Pins) Hooks() ([]Hook, error) {
	var info bpfInterfaceInfo // not that of the time of Open: another process may have attached since
	if err := p.maps.Interface.Lookup(uint32(0), &info); err != nil {
		return nil, fmt.Errorf("read how it is attached: %w", err)
	}
	var states []Hook
	err := netns.In(p.net, func() error {
		device, err := linkByIndex(int(info.Ifindex))
		if err != nil {
			return err
		}
		for _, h := range hooksOf(&info) {
			state := Hook{Name: h.name, Program: h.program, State: HookStale}
			if device != nil {
				program, err := programAt(device, h, &info)
				if err != nil {
					return fmt.Errorf("hook %s: %w", h.name, err)
				}
				if state.State = HookNone; program != 0 {
					state.State, state.ProgID, state.LinkID = HookAttached, program, info.Links[h.place]
				}
			}
			states = append(states, state)
		}
		return nil
	})
	return states, err
}

// xdpAttachedMulti is XDP_ATTACHED_MULTI of linux/if_link.h.
const xdpAttachedMulti = 4

// programAt returns the id of our program at a hook of the device, 0 if it is not there.
func programAt(device netlink.Link, h hook, info *bpfInterfaceInfo) (uint32, error) {
	ours := info.Programs[h.place]
	switch {
	case ours == 0:
		return 0, nil // attach has not come so far
	case h.pin == pinXDP:
		// Of several programs (in the driver and in the card) the kernel names none here.
		if xdp := device.Attrs().Xdp; xdp != nil && (xdp.ProgId == ours || xdp.AttachMode == xdpAttachedMulti) {
			return ours, nil
		}
		return 0, nil
	case info.Tc != bpfTcKindTcTcx:
		filters, err := netlink.FilterList(device, h.parent)
		if err != nil {
			return 0, nil // the qdisc is gone
		}
		for _, f := range filters {
			if isOurs(f) {
				return uint32(f.(*netlink.BpfFilter).Id), nil
			}
		}
		return 0, nil
	}
	all, err := link.QueryPrograms(link.QueryOptions{Target: device.Attrs().Index, Attach: h.attach})
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if slices.ContainsFunc(all.Programs, func(p link.AttachedProgram) bool { return uint32(p.ID) == ours }) {
		return ours, nil
	}
	return 0, nil
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

// unlink detaches a program from its hook, and removes the pin of its link. Removing the
// pin alone is not enough: the kernel detaches the program some time after the last
// reference is gone.
func unlink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return unpin(pin) // there is none, or it is not a link
	}
	defer l.Close()
	return errors.Join(drop(l, filepath.Base(pin)), unpin(pin))
}

// drop detaches a link. It does nothing if the interface is gone.
func drop(l link.Link, name string) error {
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("detach link %q: %w", name, err)
	}
	return nil
}

// unlinkAll takes off every pinned link of a directory.
func unlinkAll(dir string) error {
	var errs []error
	for _, pin := range []string{pinXDP, pinIn, pinOut} {
		errs = append(errs, unlink(filepath.Join(dir, pin)))
	}
	return errors.Join(errs...)
}
