// SPDX-License-Identifier: Apache-2.0

package capabilities

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Rights are those of a process: a right that one of its threads has counts.
type Rights struct {
	Capabilities []string `json:"capabilities"` // permitted ones
	NoNewPrivs   bool     `json:"no_new_privs"` // no program that it starts gets more rights
	Seccomp      bool     `json:"seccomp"`      // a filter limits its system calls
}

// Of returns the rights of a process. Everybody may read them.
func Of(pid int) (Rights, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		return Rights{}, fmt.Errorf("process %d is not there", pid)
	}
	var all []string
	for _, file := range files {
		// A thread may have ended meanwhile.
		if text, err := os.ReadFile(file); err == nil {
			all = append(all, string(text))
		}
	}
	return rights(all), nil
}

// rights joins the /proc/PID/task/TID/status of all threads.
func rights(threads []string) Rights {
	r := Rights{NoNewPrivs: len(threads) > 0, Seccomp: len(threads) > 0, Capabilities: []string{}}
	permitted := uint64(0)
	for _, text := range threads {
		set, _ := strconv.ParseUint(field(text, "CapPrm:"), 16, 64) // the kernel writes a number
		permitted |= set
		r.NoNewPrivs = r.NoNewPrivs && field(text, "NoNewPrivs:") == "1"
		r.Seccomp = r.Seccomp && field(text, "Seccomp:") == "2" // SECCOMP_MODE_FILTER
	}
	var numbers []int
	for number := range 64 {
		if permitted>>number&1 != 0 {
			numbers = append(numbers, number)
		}
	}
	r.Capabilities = append(r.Capabilities, Names(numbers)...)
	return r
}

// field returns a value of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
