// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/bpffs"
)

// MountBPFFS mounts a bpffs at /sys/fs/bpf unless one is there already. systemd does
// so at boot, but in a container the directory may be empty. It stays mounted.
func MountBPFFS() error {
	const path = bpffs.Path
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return fmt.Errorf("bpffs: %q: %w", path, err)
	}
	if uint32(stat.Type) == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", path, "bpf", 0, "mode=700"); err != nil {
		return fmt.Errorf("bpffs: mount at %q: %w", path, err)
	}
	return nil
}
