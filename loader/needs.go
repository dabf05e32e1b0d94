// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// Need is something of the kernel that Attach uses.
type Need struct {
	Name    string
	Missing error  // nil if the kernel has it; wraps ebpf.ErrNotSupported if it surely does not
	Instead string // what Attach does without it; "": it fails
	Advice  string // which kernels have it
}

// need is a Need before the kernel is asked.
type need struct {
	name, instead, advice string
	probe                 func() error
}

// always are needed in any case. The versions are those in which the kernel got them.
var always = []need{
	{"XDP", "", "use your distribution's standard kernel", func() error { return features.HaveProgramType(ebpf.XDP) }},
	{"tc", "", "use your distribution's standard kernel", func() error { return features.HaveProgramType(ebpf.SchedCLS) }},
	{"ring buffer", "", "Linux 5.8 and later have it", func() error { return features.HaveMapType(ebpf.RingBuf) }},
	{"SYSCALL programs", "", "Linux 5.14 and later have them", func() error { return features.HaveProgramType(ebpf.Syscall) }},
	{"netns cookie", "", "Linux 5.14 and later have it", func() error {
		if _, err := netns.Cookie(); err != nil {
			return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
		}
		return nil
	}},
	// The JIT of arm64 knows those that return a value since commit 1902472b4fa9.
	{"atomics", "", "on arm64 Linux 5.18 and later have them, on x86-64 Linux 5.12", haveAtomics},
}

// Needs asks the kernel for everything that Attach uses, in the calling thread's network
// namespace. Without tcx it attaches a filter to the loopback device for a moment.
func Needs() []Need {
	var all []Need
	for _, n := range always {
		all = append(all, n.ask())
	}
	loop := need{"bpf_loop", "dpclass stores verdicts in smaller batches", "Linux 5.17 and later have it",
		func() error { return features.HaveProgramHelper(ebpf.Syscall, asm.FnLoop) }}
	tcx := need{"tcx", "dpclass uses clsact filters, which stay when an agent dies, until the next attach or detach", "Linux 6.6 and later have it", haveTCX}
	all = append(all, loop.ask(), tcx.ask())
	if all[len(all)-1].Missing != nil {
		clsact := need{"clsact", "", "load the kernel modules sch_ingress and cls_bpf", haveClsact}
		all = append(all, clsact.ask())
	}
	return all
}

func (n need) ask() Need { return Need{n.name, n.probe(), n.instead, n.advice} }

// checkKernel is the error if the kernel lacks something without which Attach fails.
func checkKernel(needs []need) error {
	for _, n := range needs {
		if got := n.ask(); errors.Is(got.Missing, ebpf.ErrNotSupported) {
			return fault.Advise(fmt.Errorf("%w: it has no %s", ErrOldKernel, got.Name), "%s", got.Advice)
		}
	}
	return nil
}

// errNotSupp is ENOTSUPP of linux/errno.h, which user space has no name for.
const errNotSupp = unix.Errno(524)

// haveAtomics loads a program with a compare-and-exchange.
func haveAtomics() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R1, 1),
		asm.CmpXchg.Mem(asm.RFP, asm.R1, asm.DWord, -8),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, errNotSupp): // from the verifier, from the JIT
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	case err != nil:
		return fmt.Errorf("load a program: %w", err)
	}
	return program.Close()
}

// haveTCX asks for the tcx programs of the loopback device; the answer does not matter.
func haveTCX() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	_, err = link.QueryPrograms(link.QueryOptions{Target: loopback.Attrs().Index, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, unix.EINVAL) { // kernels before tcx do not know the attach type
		return ebpf.ErrNotSupported
	}
	return err
}

// haveClsact attaches a filter that does nothing to packets that the loopback device sends, and
// removes it.
func haveClsact() (err error) {
	device, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return()}}) // TC_ACT_UNSPEC
	if err != nil {
		return fmt.Errorf("load a program: %w", err)
	}
	defer program.Close()
	own, err := addClsact(device)
	if err != nil {
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	if own {
		defer func() { err = errors.Join(err, removeQdisc(device)) }()
	}
	filter := filterOf(device, hookOut())
	filter.Name, filter.Priority, filter.Fd = "probe", filterPriority-1, program.FD()
	if err := netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("%w: add a tc filter: %w", ebpf.ErrNotSupported, err)
	}
	return netlink.FilterDel(filter)
}
