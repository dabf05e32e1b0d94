// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/capabilities"
	"github.com/dpclass/dpclass/internal/cli"
)

// unitFile is the unit of systemd.
const unitFile = "../../packaging/dpclass@.service"

// unitVariable names a file with numbers of system calls. It makes the test binary start its
// arguments under what the unit asks for, as systemd does.
const unitVariable = "DPCLASS_TEST_UNIT"

// setting returns all values of a setting of the unit, in order.
func setting(t *testing.T, name string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		t.Fatalf("%s has no %s", unitFile, name)
	}
	return values
}

// TestUnit: systemd takes the unit, the unit asks for the capabilities that the code needs, and
// its command line is one that dpclass has.
func TestUnit(t *testing.T) {
	want := strings.Fields(setting(t, "CapabilityBoundingSet")[0])
	if needed := capabilities.Needed(); !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(needed))) {
		t.Errorf("CapabilityBoundingSet is %v, dpclass needs %v", want, needed)
	}
	root := newRootCommand(&cli.Globals{})
	for _, command := range append(setting(t, "ExecStart"), setting(t, "ExecReload")...) {
		words := strings.Fields(command)
		verb, rest, err := root.Find(words[1:])
		if err != nil || verb == root {
			t.Errorf("%q: %v", command, err)
			continue
		}
		rest = slices.DeleteFunc(rest, func(word string) bool { return strings.HasPrefix(word, "$") })
		if err := verb.ParseFlags(rest); err != nil {
			t.Errorf("%q: %v", command, err)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("SKIPPED, what systemd says about the unit: %v", err)
	}
	// It wants the program to be there.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dpclass@.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/dpclass", program)), 0o644); err != nil {
		t.Fatal(err)
	}
	verify := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", file)
	out, err := verify.CombinedOutput()
	var about []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "dpclass") && !strings.Contains(line, "runtime directory") {
			about = append(about, line)
		}
	}
	if err != nil || len(about) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
}

// unitCalls returns the system calls that the unit lets through, by number.
func unitCalls(t *testing.T) []int {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "--no-pager", "syscall-filter").Output()
	if err != nil {
		t.Skipf("SKIPPED: only systemd knows its sets of system calls: %v", err)
	}
	sets, set := map[string][]string{}, ""
	for line := range strings.Lines(string(out)) {
		line, word := strings.TrimRight(line, "\n"), strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"), strings.HasPrefix(word, "#"), word == "":
		case line == word:
			set = word
		default:
			sets[set] = append(sets[set], word)
		}
	}
	var expand func(name string) []string
	expand = func(name string) (names []string) {
		if !strings.HasPrefix(name, "@") {
			return []string{name}
		}
		if len(sets[name]) == 0 {
			t.Fatalf("systemd has no set %s", name)
		}
		for _, inner := range sets[name] {
			names = append(names, expand(inner)...)
		}
		return names
	}
	// systemd always lets these through.
	allowed := map[string]bool{"execve": true}
	for _, name := range expand("@default") {
		allowed[name] = true
	}
	for _, line := range setting(t, "SystemCallFilter") {
		words, forbid := strings.CutPrefix(line, "~")
		for _, word := range strings.Fields(words) {
			for _, name := range expand(word) {
				allowed[name] = !forbid
			}
		}
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = filepath.Join(runtime.GOROOT(), "bin", "go")
	}
	dir, err := exec.Command(tool, "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+runtime.GOARCH+".go"))
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, found := range regexp.MustCompile(`SYS_(\w+)\s+= (\d+)`).FindAllStringSubmatch(string(table), -1) {
		if allowed[strings.ToLower(found[1])] {
			number, err := strconv.Atoi(found[2])
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, number)
		}
	}
	if len(numbers) < 100 {
		t.Fatalf("only %d system calls", len(numbers))
	}
	return numbers
}

// instruction is a struct sock_filter.
func instruction(code uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: code, K: k, Jt: jt, Jf: jf}
}

// unitProgram is the filter for these system calls, and for the unit's families of sockets.
func unitProgram(calls []int) []unix.SockFilter {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	// struct seccomp_data: nr, arch, instruction pointer, args.
	program := []unix.SockFilter{
		instruction(load, 4, 0, 0), instruction(equal, arch, 1, 0), instruction(ret, unix.SECCOMP_RET_KILL_PROCESS, 0, 0),
		instruction(load, 0, 0, 0),
	}
	families := []uint32{unix.AF_NETLINK, unix.AF_INET, unix.AF_INET6, unix.AF_UNIX}
	program = append(program, instruction(equal, unix.SYS_SOCKET, 0, uint8(2*len(families)+2)), instruction(load, 16, 0, 0))
	for _, family := range families {
		program = append(program, instruction(equal, family, 0, 1), instruction(ret, unix.SECCOMP_RET_ALLOW, 0, 0))
	}
	program = append(program, instruction(ret, refuse, 0, 0))
	for _, call := range calls {
		program = append(program, instruction(equal, uint32(call), 0, 1), instruction(ret, unix.SECCOMP_RET_ALLOW, 0, 0))
	}
	return append(program, instruction(ret, refuse, 0, 0))
}

// runUnit replaces this process by the program of its arguments, under what the unit asks
// for. file has the numbers of system calls, 4 bytes each.
func runUnit(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var calls []int
	for ; len(raw) >= 4; raw = raw[4:] {
		calls = append(calls, int(binary.NativeEndian.Uint32(raw)))
	}
	runtime.LockOSThread() // what follows is about this thread, and exec keeps it
	three := uint64(1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_PERFMON)
	for capability := 0; ; capability++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(capability), 0, 0, 0); err != nil {
			break
		}
		if three>>capability&1 == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil {
				return fmt.Errorf("bounding set: %w", err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// MemoryDenyWriteExecute, as newer systemd does it. Linux 6.3 and later have it.
	if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("write or execute: %w", err)
	}
	program := unitProgram(calls)
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	os.Unsetenv(unitVariable)
	return fmt.Errorf("exec: %w", unix.Exec(os.Args[1], os.Args[1:], os.Environ()))
}
