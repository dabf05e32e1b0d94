// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MountBPFFS sees to it that /sys/fs/bpf is a bpffs, as systemd does at boot:
// in a container it may be an empty folder. It stays mounted.
func MountBPFFS() error {
	const path = "/sys/fs/bpf"
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return fmt.Errorf("bpffs: %q: %w", path, err)
	}
	if uint32(stat.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", path, "bpf", 0, "mode=700"); err != nil {
		return fmt.Errorf("bpffs: mounting %q: %w", path, err)
	}
	return nil
}
