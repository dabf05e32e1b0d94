// SPDX-License-Identifier: Apache-2.0

// Package bpffs knows where the BPF file system is, and what is there instead.
package bpffs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
)

// Path is where pins live.
const Path = "/sys/fs/bpf"

// State says what is at Path.
type State int

// The states.
const (
	Mounted State = iota
	Missing       // no BPF file system; one can be mounted
	Hidden        // no BPF file system, because this process has a mount namespace of its own
)

// Look returns what is at Path.
func Look() (State, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(Path, &stat); err != nil {
		return Missing, fmt.Errorf("%s: %w", Path, err)
	}
	if stat.Type == unix.BPF_FS_MAGIC {
		return Mounted, nil
	}
	own, err1 := os.Readlink("/proc/self/ns/mnt")
	first, err2 := os.Readlink("/proc/1/ns/mnt")
	switch {
	case err1 != nil || err2 != nil: // root in a container, say, or a user: only root could mount in the wrong place
		if os.Geteuid() == 0 {
			return Hidden, nil
		}
	case own != first:
		return Hidden, nil
	}
	return Missing, nil
}

// Usable is the error if this user may not pin there. systemd and dpclass mount the file
// system for root alone (mode 0700).
func Usable() error {
	const pins = Path + "/dpclass"
	err := unix.Faccessat(unix.AT_FDCWD, Path, unix.X_OK, unix.AT_EACCESS)
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, pins, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if errors.Is(err, unix.ENOENT) {
			err = unix.Faccessat(unix.AT_FDCWD, Path, unix.W_OK, unix.AT_EACCESS)
		}
	}
	if err != nil {
		err = fmt.Errorf("pin below %s: %w", Path, err)
	}
	return fault.Advise(err, "run as root, or let the user in: chmod a+x "+Path+" && install -d -o USER "+pins)
}
