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
func Names(numbers []int) []string {
	other := map[int]string{unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE"}
	for _, c := range needed {
		other[c.number] = c.name
	}
	var names []string
	for _, number := range numbers {
		name, ok := other[number]
		if !ok {
			name = fmt.Sprintf("capability %d", number)
		}
		names = append(names, name)
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
