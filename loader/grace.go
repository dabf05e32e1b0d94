// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// waitForPackets waits until every packet that a program was working on has left the
// program: an RCU grace period, which the kernel waits for when a map in a map is replaced
// (maybe_wait_bpf_programs in kernel/bpf/syscall.c). It takes 10 to 20 ms.
func waitForPackets() (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("wait for packets on their way: %w", err)
		}
	}()
	inner := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: inner})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, outer.Close()) }()
	m, err := ebpf.NewMap(inner)
	if err != nil {
		return err
	}
	return errors.Join(outer.Put(uint32(0), m), m.Close())
}
