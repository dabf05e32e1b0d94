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

// Record are the capabilities that dpclass record needs besides: to read packets, and to see
// the open files of other users' processes.
var Record = []Capability{{"CAP_NET_RAW", unix.CAP_NET_RAW}, {"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE},
	{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH}}

// Capability is a capability by its name and number (capabilities(7)).
type Capability struct {
	Name   string
	Number int
}

// MissingFor returns the names of those that this process lacks. If that cannot be read, it
// lacks none: the kernel has the last word.
func MissingFor(all []Capability) []string {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil
	}
	return missingFor(string(text), all)
}

func missingFor(status string, all []Capability) []string {
	set := effective(status)
	var names []string
	for _, c := range all {
		if set&(1<<c.Number) == 0 {
			names = append(names, c.Name)
		}
	}
	return names
}

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
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			// A line that cannot be read counts as no capability.
			set, _ := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return set
		}
	}
	return 0
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
