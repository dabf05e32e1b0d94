// SPDX-License-Identifier: Apache-2.0

// Package confine takes rights away from this process, in all of its threads, those of C
// libraries too: capabilities, files, the network. What is taken away cannot come back.
package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	lsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// everywhere makes a system call in every thread. The threads have the same rights, so it
// has the same outcome in all of them.
func everywhere(call uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := psx.Syscall6(call, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// EnterNetns moves every thread to an open network namespace. This takes CAP_SYS_ADMIN.
func EnterNetns(fd int) error {
	if err := everywhere(unix.SYS_SETNS, uintptr(fd), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace with all threads: %w", err)
	}
	return nil
}

// Capabilities leaves the process no other capabilities than those of keep, numbers as
// unix.CAP_BPF, that it has. Programs that it starts get none. no_new_privs is set, so that
// neither set-user-ID programs nor file capabilities give any back. whole says that the
// bounding set was cut down as well; that takes CAP_SETPCAP, which only root has.
func Capabilities(keep ...int) (whole bool, err error) {
	if err := everywhere(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return false, fmt.Errorf("no_new_privs: %w", err)
	}
	wanted := uint64(0)
	for _, capability := range keep {
		wanted |= 1 << capability
	}
	whole = true
	for capability := 0; ; capability++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(capability), 0, 0, 0)
		if err != nil {
			break // the kernel has no more
		}
		if in == 0 || wanted>>capability&1 != 0 {
			continue
		}
		if err := everywhere(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(capability)); errors.Is(err, unix.EPERM) {
			whole = false
			break
		} else if err != nil {
			return false, fmt.Errorf("take capability %d out of the bounding set: %w", capability, err)
		}
	}
	if err := everywhere(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return false, fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	// Process id 0 is the thread that makes the call.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false, fmt.Errorf("read the capabilities: %w", err)
	}
	for n := range sets {
		left := sets[n].Permitted & uint32(wanted>>(32*n))
		sets[n] = unix.CapUserData{Effective: left, Permitted: left}
	}
	// The other threads read these two through the pointers.
	pin := runtime.Pinner{}
	defer pin.Unpin()
	pin.Pin(&header)
	pin.Pin(&sets)
	if err := everywhere(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0]))); err != nil {
		return false, fmt.Errorf("drop capabilities: %w", err)
	}
	return whole, nil
}

// Has reports whether the calling thread has a capability in its permitted set.
func Has(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&header, &sets[0]) == nil && sets[capability/32].Permitted>>(capability%32)&1 != 0
}

// Landlock returns the version of the kernel's Landlock interface, 0 if it has none or it is
// switched off.
func Landlock() int {
	version, err := lsys.LandlockGetABIVersion()
	if err != nil || version < 0 {
		return 0
	}
	return version
}

// Versions of Landlock's interface (Documentation/userspace-api/landlock.rst of the kernel).
const (
	LandlockTCP = 4 // it restricts TCP; Linux 6.7

	// From 7 on (Linux 6.15) threads may signal each other although each has a domain of its
	// own. Before, Go could not interrupt its own threads.
	landlockSignals = 7
)

// Paths are the files that a process may use. Those that do not exist are left out. A
// directory stands for everything below it.
type Paths struct {
	Read  []string // read files, list directories
	Write []string // also make, change and remove them
}

// Files takes away every access to files but to those of paths, also the right to execute
// any, and all use of TCP and UDP, and signals to other processes, as far as the kernel's
// Landlock can. It returns the version of its interface; 0 means that nothing was taken away.
func Files(paths Paths) (version int, err error) {
	version = Landlock()
	const read = lsys.AccessFSReadFile
	const list = read | lsys.AccessFSReadDir
	const change = lsys.AccessFSWriteFile | lsys.AccessFSTruncate
	const write = list | change | lsys.AccessFSRemoveDir | lsys.AccessFSRemoveFile | lsys.AccessFSMakeDir | lsys.AccessFSMakeReg
	var rules []landlock.Rule
	add := func(paths []string, file, dir landlock.AccessFSSet) {
		for _, path := range paths {
			info, err := os.Stat(path)
			switch {
			case err != nil: // no file, no right
			case info.IsDir():
				rules = append(rules, landlock.PathAccess(dir, path).IgnoreIfMissing())
			default:
				rules = append(rules, landlock.PathAccess(file, path).IgnoreIfMissing())
			}
		}
	}
	add(paths.Read, read, list)
	add(paths.Write, read|change, write)
	config := landlock.V10
	if version < landlockSignals {
		config.Scoped &^= lsys.ScopeSignal
	}
	if err := config.BestEffort().Restrict(rules...); err != nil {
		return 0, fmt.Errorf("Landlock: %w", err)
	}
	return version, nil
}
