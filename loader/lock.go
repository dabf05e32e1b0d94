// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
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

// A process changes a policy in a fraction of a second, unless it is stopped.
const (
	policyWait  = 10 * time.Second
	policyRetry = 2 * time.Millisecond
)

// policyMutex is the lock of policies without pins.
var policyMutex sync.Mutex

// lockPolicies takes the lock that a process holds while it changes a policy. The kernel
// releases it if the process dies. It is on the directory above the pins, because the
// agent holds a lock on the pin directory as long as it runs. If another process has it,
// lockPolicies waits, but at most for the time wait.
func lockPolicies(dir string, wait time.Duration) (unlock func() error, err error) {
	if dir == "" {
		policyMutex.Lock()
		return func() error { policyMutex.Unlock(); return nil }, nil
	}
	above := filepath.Dir(dir)
	f, err := os.Open(above)
	if err != nil {
		return nil, fmt.Errorf("pin directory: %w", err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(policyRetry) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f.Close, nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %q: %w", above, err)
		case time.Now().After(end):
			f.Close()
			return nil, fault.New(fmt.Sprintf("another process has been changing a policy for %v", wait),
				`continue or end it: "pgrep -a dpclass" finds a process that was stopped`)
		}
	}
}
