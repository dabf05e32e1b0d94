// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockDir takes the lock that a live agent holds on its pin directory. The error
// wraps ErrBusy if another process has it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("pin directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock %q: %w", dir, err)
	}
	// A second lock, of a kind that can be tested without taking it.
	shared := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &shared); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", dir, err)
	}
	return f, nil
}

// isLocked reports whether a live agent holds the pin directory.
func isLocked(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, fmt.Errorf("pin directory: %w", err)
	}
	defer f.Close()
	wanted := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &wanted); err != nil {
		return false, fmt.Errorf("lock %q: %w", dir, err)
	}
	return wanted.Type != unix.F_UNLCK, nil
}

// isSameDir reports whether a path leads to the open directory.
func isSameDir(open *os.File, path string) bool {
	var have, want unix.Stat_t
	err1, err2 := unix.Fstat(int(open.Fd()), &have), unix.Stat(path, &want)
	return err1 == nil && err2 == nil && have.Dev == want.Dev && have.Ino == want.Ino
}
