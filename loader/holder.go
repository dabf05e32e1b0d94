// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// isDir reports whether a path leads to the open directory.
func isDir(open *os.File, path string) bool {
	var have, want unix.Stat_t
	err1, err2 := unix.Fstat(int(open.Fd()), &have), unix.Stat(path, &want)
	return err1 == nil && err2 == nil && have.Dev == want.Dev && have.Ino == want.Ino
}

// holders returns the processes that hold an exclusive flock on a directory in the file
// system of dir, by inode. Everybody may read /proc/locks. /proc/PID/fd is for the same
// user only, and not even for that user if the program has capabilities.
func holders(dir string) (map[uint64]int, error) {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return nil, fmt.Errorf("pin directory: %w", err)
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil, fmt.Errorf("who holds the pins: %w", err)
	}
	device := fmt.Sprintf("%02x:%02x", unix.Major(stat.Dev), unix.Minor(stat.Dev))
	held := map[uint64]int{}
	for line := range strings.Lines(string(text)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:1c:12345 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		inode, ours := strings.CutPrefix(f[5], device+":")
		number, err1 := strconv.ParseUint(inode, 10, 64)
		pid, err2 := strconv.Atoi(f[4])
		if ours && err1 == nil && err2 == nil {
			held[number] = pid
		}
	}
	return held, nil
}

// holder returns the process that holds the lock of a pin directory, 0 if it is not known.
func holder(dir string) int {
	var stat unix.Stat_t
	held, err := holders(dir)
	if err != nil || unix.Stat(dir, &stat) != nil {
		return 0
	}
	return held[stat.Ino]
}

// holdsAny reports whether a process holds a pin directory of the root.
func (r root) holdsAny(pid int) bool {
	places, err := os.ReadDir(string(r))
	if err != nil {
		return false
	}
	held, err := holders(string(r))
	if err != nil {
		return false
	}
	for _, entry := range places {
		var stat unix.Stat_t
		if unix.Stat(string(r)+"/"+entry.Name(), &stat) == nil && held[stat.Ino] == pid {
			return true
		}
	}
	return false
}
