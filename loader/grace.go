// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// waitForPackets returns once every packet that was in a BPF program at the time of the
// call has left it: an RCU grace period, mostly 10 to 20 ms. The kernel waits for one when
// user space changes a map of maps (maybe_wait_bpf_programs in kernel/bpf/syscall.c, since
// Linux 4.16).
func waitForPackets() error {
	inner := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: inner})
	if err != nil {
		return fmt.Errorf("wait for the packets under way: map of maps: %w", err)
	}
	defer outer.Close()
	first, err := ebpf.NewMap(inner)
	if err != nil {
		return fmt.Errorf("wait for the packets under way: %w", err)
	}
	defer first.Close()
	if err := outer.Put(uint32(0), first); err != nil {
		return fmt.Errorf("wait for the packets under way: %w", err)
	}
	return nil
}
