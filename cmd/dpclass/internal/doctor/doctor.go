// SPDX-License-Identifier: Apache-2.0

// Package doctor checks whether a machine has what dpclass needs: the kernel and its
// features, privileges, the bpf file system, ONNX Runtime and the models.
package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/fault"
)

// The states of a finding: OK, Warn if dpclass works without what is missing, and
// Fail.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
)

// Finding is the result of one check, and the JSON of "dpclass doctor -o json".
type Finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // OK, Warn or Fail
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what the user can do
}

// Examine makes every check in the current network namespace. library is the path of
// ONNX Runtime's library, "" to search for it; models are the models in use, none for
// the default.
func Examine(library string, models []string) []Finding {
	findings := []Finding{examineKernel(), examinePrivileges()}
	privileged := findings[1].State == OK
	findings = append(findings, examineFeatures(privileged)...)
	findings = append(findings, examineBTF(), examineJIT(), examineBPFFS(), examineLibrary(library))
	return append(findings, examineModels(models)...)
}

// kernelFull is the release from which everything works, kernelLeast the oldest
// supported one.
var (
	kernelFull  = [2]int{6, 6}
	kernelLeast = [2]int{5, 15}
)

func examineKernel() Finding {
	f := Finding{Check: "kernel", State: OK}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Finding{"kernel", Fail, err.Error(), "run dpclass on Linux"}
	}
	f.Found = unix.ByteSliceToString(name.Release[:])
	version, ok := kernelVersion(f.Found)
	switch {
	case !ok:
		f.State, f.Advice = Warn, fmt.Sprintf("cannot read the release number; dpclass needs %d.%d or later", kernelLeast[0], kernelLeast[1])
	case older(version, kernelLeast):
		f.State, f.Advice = Fail, fmt.Sprintf("install Linux %d.%d or later, better %d.%d",
			kernelLeast[0], kernelLeast[1], kernelFull[0], kernelFull[1])
	case older(version, kernelFull):
		f.State, f.Advice = Warn, fmt.Sprintf("everything works on Linux %d.%d and later; older kernels have no tcx, so dpclass uses clsact filters",
			kernelFull[0], kernelFull[1])
	}
	return f
}

// kernelVersion reads the first two numbers of a release: 6.18.44-fc.
func kernelVersion(release string) (version [2]int, ok bool) {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return version, false
	}
	for i := range version {
		digits := strings.TrimRight(parts[i], "-+~abcdefghijklmnopqrstuvwxyz")
		n, err := strconv.Atoi(digits)
		if err != nil {
			return version, false
		}
		version[i] = n
	}
	return version, true
}

func older(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

func examinePrivileges() Finding {
	f := Finding{Check: "privileges", State: OK, Found: "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Finding{"privileges", Warn, err.Error(), "mount /proc"}
	}
	if missing := missingCapabilities(string(text)); len(missing) > 0 {
		f.State, f.Found = Fail, "missing: "+strings.Join(missing, ", ")
		f.Advice = "run as root (sudo dpclass doctor) for attach, flows, status, detach and policy; classify, eval and policy check need no privileges"
	}
	return f
}

// missingCapabilities reads the effective set of /proc/self/status.
// CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
func missingCapabilities(status string) []string {
	var effective uint64
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			// A line that cannot be read counts as no capability.
			effective, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	has := func(capability int) bool { return effective&(1<<capability) != 0 }
	var missing []string
	for _, c := range []struct {
		name   string
		number int
		admin  bool // CAP_SYS_ADMIN has it too
	}{
		{"CAP_BPF", unix.CAP_BPF, true}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false}, {"CAP_PERFMON", unix.CAP_PERFMON, true},
	} {
		if !has(c.number) && (!c.admin || !has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	return missing
}

// examineFeatures asks the kernel for each thing that the programs use.
func examineFeatures(privileged bool) []Finding {
	if !privileged {
		return []Finding{{"features", Warn, "not checked: needs privileges", "run dpclass doctor as root"}}
	}
	const update = "use your distribution's standard kernel"
	return []Finding{
		feature("XDP", Fail, update, features.HaveProgramType(ebpf.XDP)),
		feature("tc", Fail, update, features.HaveProgramType(ebpf.SchedCLS)),
		feature("tcx", Warn, "Linux 6.6 and later have it; without it dpclass uses clsact filters", haveTCX()),
		feature("ring buffer", Fail, "Linux 5.8 and later have it", features.HaveMapType(ebpf.RingBuf)),
		feature("bpf_loop", Warn, "Linux 5.17 and later have it; without it dpclass stores verdicts in smaller batches", features.HaveProgramHelper(ebpf.Syscall, asm.FnLoop)),
	}
}

func feature(name, worst, advice string, err error) Finding {
	switch {
	case err == nil:
		return Finding{name, OK, "available", ""}
	case errors.Is(err, ebpf.ErrNotSupported):
		return Finding{name, worst, "missing", advice}
	}
	return Finding{name, Warn, "unknown: " + strings.Join(strings.Fields(err.Error()), " "), "try dpclass attach: it fails with a reason if it needs this"}
}

// haveTCX asks for the tcx programs of the loopback device; the answer does not matter.
func haveTCX() error {
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	_, err = link.QueryPrograms(link.QueryOptions{Target: loopback.Index, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, unix.EINVAL) { // kernels before tcx do not know the attach type
		return ebpf.ErrNotSupported
	}
	return err
}

func examineBTF() Finding {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return Finding{"BTF", Warn, "the kernel has none", "dpclass works without it; bpftool may show less"}
	}
	return Finding{"BTF", OK, "available", ""}
}

func examineJIT() Finding {
	text, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	switch value := strings.TrimSpace(string(text)); {
	case err != nil:
		return Finding{"BPF JIT", OK, "always on", ""} // CONFIG_BPF_JIT_ALWAYS_ON may hide it; the file needs root
	case value == "0":
		return Finding{"BPF JIT", Warn, "off: each packet costs several times as much", "sysctl net.core.bpf_jit_enable=1"}
	default:
		return Finding{"BPF JIT", OK, "on", ""}
	}
}

func examineBPFFS() Finding {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs.Path, &fs); err != nil {
		return Finding{"bpffs", Fail, fmt.Sprintf("%s: %s", bpffs.Path, err), "mount -t bpf bpf " + bpffs.Path}
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return Finding{"bpffs", Fail, bpffs.Path + " is not a bpf file system",
			"mount -t bpf bpf " + bpffs.Path + "; in ip netns exec, run dpclass outside with --netns NAME instead"}
	}
	return Finding{"bpffs", OK, "mounted at " + bpffs.Path, ""}
}

func examineLibrary(library string) Finding {
	path, err := ort.Find(library)
	if err != nil {
		return failure("ONNX Runtime", err, "attach --no-classify works without it")
	}
	version, err := ort.Version(library)
	if err != nil {
		return failure("ONNX Runtime", err, "")
	}
	return Finding{"ONNX Runtime", OK, version + " at " + path, ""}
}

func examineModels(inUse []string) []Finding {
	var findings []Finding
	for _, name := range model.Shipped() {
		if _, err := model.Load(name); err != nil {
			findings = append(findings, failure("model "+name, err, "install dpclass again"))
		}
	}
	models, err := model.LoadAll(inUse)
	if err != nil {
		return append(findings, failure("models", err, "choose others: dpclass models use NAME"))
	}
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return append(findings, Finding{"models", OK, fmt.Sprintf("%d shipped, in use: %s", len(model.Shipped()), strings.Join(names, ", ")), ""})
}

// failure is the finding of an error. The error's own advice comes before the other.
func failure(check string, err error, other string) Finding {
	advice := fault.Advice(err)
	if other != "" {
		advice = append(advice, other)
	}
	return Finding{check, Fail, err.Error(), strings.Join(advice, "; ")}
}
