// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
)

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

// addClsact makes sure that the device has a clsact qdisc. own reports whether it is new.
func addClsact(device netlink.Link) (own bool, err error) {
	err = netlink.QdiscAdd(clsactOf(device))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EEXIST):
		return false, nil
	case errors.Is(err, unix.ENOENT): // no such kind of qdisc
		err = fault.Advise(err, "load the kernel module sch_ingress, or use a kernel that has it or tcx (Linux 6.6)")
	}
	return false, fmt.Errorf("add a clsact qdisc: %w", err)
}

// attachClsact attaches the program with a new filter, or puts it into our filter that
// is already there. The device has a clsact qdisc.
func attachClsact(program *ebpf.Program, device netlink.Link, h hook) error {
	filters, err := netlink.FilterList(device, h.parent)
	if err != nil {
		return fmt.Errorf("list tc filters: %w", err)
	}
	for _, f := range filters {
		if f.Attrs().Priority == filterPriority && !isOurs(f) {
			return fault.Advise(fmt.Errorf("a tc filter of another program has priority %d on %s of %q",
				filterPriority, h.name, device.Attrs().Name), "remove that filter first")
		}
	}
	filter := filterOf(device, h)
	filter.Fd = program.FD()
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("add a tc filter: %w", err)
	}
	return nil
}

func isOurs(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && strings.HasPrefix(b.Name, filterName) && b.Priority == filterPriority
}

// removeFilters removes our filters of one parent.
func removeFilters(device netlink.Link, parent uint32) error {
	filters, err := netlink.FilterList(device, parent)
	if err != nil {
		return nil // the qdisc is gone
	}
	var errs []error
	for _, f := range filters {
		if !isOurs(f) {
			continue
		}
		if err := netlink.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove a tc filter: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeQdisc removes a clsact qdisc that we created, unless others have filters in it.
func removeQdisc(device netlink.Link) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if filters, err := netlink.FilterList(device, parent); err == nil && len(filters) > 0 {
			return nil
		}
	}
	if err := netlink.QdiscDel(clsactOf(device)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the clsact qdisc: %w", err)
	}
	return nil
}

// removeClsact removes our filters of an interface of this namespace, and the qdisc if it
// is ours.
func removeClsact(info *bpfInterfaceInfo) error {
	device, err := linkByIndex(int(info.Ifindex))
	if err != nil || device == nil {
		return err
	}
	errs := []error{removeFilters(device, netlink.HANDLE_MIN_INGRESS), removeFilters(device, netlink.HANDLE_MIN_EGRESS)}
	if info.Tc == bpfTcKindTcOwnClsact {
		errs = append(errs, removeQdisc(device))
	}
	return errors.Join(errs...)
}
