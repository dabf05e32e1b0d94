// SPDX-License-Identifier: Apache-2.0

// Package capabilities knows which capabilities dpclass needs, and which of them this
// process lacks.
package capabilities

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// needed are the capabilities. CAP_SYS_ADMIN includes those with admin.
var needed = []struct {
	name   string
	number int
	admin  bool
}{
	{"CAP_BPF", unix.CAP_BPF, true}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false}, {"CAP_PERFMON", unix.CAP_PERFMON, true},
}

// Needed returns the names of the capabilities that dpclass needs.
func Needed() []string {
	var names []string
	for _, c := range needed {
		names = append(names, c.name)
	}
	return names
}

// Keep returns the numbers of the capabilities that dpclass goes on with when it gives up
// the others: those that it needs, and CAP_SYS_ADMIN if it has that instead of one of them.
func Keep() ([]int, error) {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	return keep(effective(string(text))), nil
}

func keep(set uint64) []int {
	var numbers []int
	admin := false
	for _, c := range needed {
		has := set&(1<<c.number) != 0
		if has {
			numbers = append(numbers, c.number)
		}
		admin = admin || !has && c.admin
	}
	if admin && set&(1<<unix.CAP_SYS_ADMIN) != 0 {
		numbers = append(numbers, unix.CAP_SYS_ADMIN)
	}
	return numbers
}

// Names returns the names of capabilities.
func Names(all []int) []string {
	names := make([]string, 0, len(all))
	for _, number := range all {
		if number < len(byNumber) {
			names = append(names, "CAP_"+byNumber[number])
		} else {
			names = append(names, fmt.Sprintf("capability %d", number))
		}
	}
	return names
}

// Record are the capabilities that dpclass record needs besides: to read packets, and to see
// the open files of other users' processes.
var Record = []int{unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}

// MissingFor returns the names of those that this process lacks. If that cannot be read, it
// lacks none: the kernel has the last word.
func MissingFor(all []int) []string {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil
	}
	return missingFor(string(text), all)
}

func missingFor(status string, all []int) []string {
	set := effective(status)
	var numbers []int
	for _, number := range all {
		if set&(1<<number) == 0 {
			numbers = append(numbers, number)
		}
	}
	return Names(numbers)
}

// byNumber are the names of all capabilities, without CAP_ (linux/capability.h).
var byNumber = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// Missing returns the names of those that this process lacks.
func Missing() ([]string, error) {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	return missing(string(text)), nil
}

// Admin reports whether this process has CAP_SYS_ADMIN: it may mount file systems and
// enter other network namespaces.
func Admin() bool {
	text, err := os.ReadFile("/proc/thread-self/status")
	return err == nil && effective(string(text))&(1<<unix.CAP_SYS_ADMIN) != 0
}

// effective returns the effective set of /proc/PID/status.
func effective(status string) uint64 {
	set, _ := strconv.ParseUint(field(status, "CapEff:"), 16, 64) // a line that cannot be read counts as no capability
	return set
}

// missing returns the names of the needed capabilities that /proc/PID/status lacks.
func missing(status string) []string {
	set := effective(status)
	has := func(capability int) bool { return set&(1<<capability) != 0 }
	var names []string
	for _, c := range needed {
		if !has(c.number) && (!c.admin || !has(unix.CAP_SYS_ADMIN)) {
			names = append(names, c.name)
		}
	}
	return names
}
