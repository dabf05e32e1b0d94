// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/lab"
)

// TestNeeds: this kernel has what Attach needs, and the probe of clsact leaves nothing.
func TestNeeds(t *testing.T) {
	needRoot(t)
	h := newHost(t, lab.ForTest(t), "near")
	in(t, h, func() error {
		var names []string
		for _, n := range Needs() {
			names = append(names, n.Name)
			if n.Missing != nil && n.Instead == "" {
				t.Errorf("%s: %v", n.Name, n.Missing)
			}
		}
		for _, want := range []string{"XDP", "atomics", "tcx"} {
			if !slices.Contains(names, want) {
				t.Errorf("no %s in %v", want, names)
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for range 2 {
			if err := haveClsact(); err != nil {
				t.Error(err)
			}
		}
		if hasClsact(t, lo) {
			t.Error("the clsact qdisc is left")
		}
		// That of others stays.
		if err := netlink.QdiscAdd(clsactOf(lo)); err != nil {
			return err
		}
		if err := haveClsact(); err != nil || !hasClsact(t, lo) {
			t.Errorf("another's qdisc: %v", err)
		}
		return nil
	})
}

// TestOldKernel: what is missing is named, with the kernels that have it.
func TestOldKernel(t *testing.T) {
	has, lacks, odd := func() error { return nil }, func() error { return ebpf.ErrNotSupported }, func() error { return errors.New("odd") }
	for _, n := range always {
		n.probe = lacks
		err := checkKernel([]need{{"first", "", "never", has}, {"second", "", "never", odd}, n})
		if !errors.Is(err, ErrOldKernel) || !strings.Contains(err.Error(), n.name) || !isAdvised(err) {
			t.Errorf("without %s: %v", n.name, err)
		}
	}
	// The JIT of arm64 before 5.18: ENOTSUPP.
	arm := always[slices.IndexFunc(always, func(n need) bool { return n.name == "atomics" })]
	if !strings.Contains(arm.advice, "arm64 Linux 5.18") {
		t.Errorf("advice %q", arm.advice)
	}
}
