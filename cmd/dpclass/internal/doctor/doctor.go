// SPDX-License-Identifier: Apache-2.0

// Package doctor checks whether a machine has what dpclass needs: the kernel and its
// features, privileges, the bpf file system, ONNX Runtime and the models.
package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/capabilities"
	"github.com/dpclass/dpclass/internal/confine"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/loader/owner"
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
	findings = append(findings, examineNeeds(privileged)...)
	findings = append(findings, sandboxFinding(confine.Landlock()), examineBTF(), examineJIT(), examineBPFFS(), examineSockets(), examineLibrary(library))
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
	f := Finding{Check: "privileges", State: OK, Found: strings.Join(capabilities.Needed(), ", ")}
	missing, err := capabilities.Missing()
	if err != nil {
		return Finding{"privileges", Warn, err.Error(), "mount /proc"}
	}
	if len(missing) > 0 {
		f.State, f.Found = Fail, "missing: "+strings.Join(missing, ", ")
		f.Advice = "run as root (sudo dpclass doctor) for attach, flows, status, detach and policy; classify, eval and policy check need no privileges"
	}
	return f
}

// examineNeeds asks the kernel for each thing that attach uses.
func examineNeeds(privileged bool) []Finding {
	if !privileged {
		return []Finding{{"features", Warn, "not checked: needs privileges", "run dpclass doctor as root"}}
	}
	var findings []Finding
	for _, n := range loader.Needs() {
		findings = append(findings, feature(n))
	}
	return findings
}

func feature(n loader.Need) Finding {
	switch {
	case n.Missing == nil:
		return Finding{n.Name, OK, "available", ""}
	case !errors.Is(n.Missing, ebpf.ErrNotSupported):
		return Finding{n.Name, Warn, "unknown: " + strings.Join(strings.Fields(n.Missing.Error()), " "), "try dpclass attach: it fails with a reason if it needs this"}
	case n.Instead != "":
		return Finding{n.Name, Warn, "missing", n.Advice + "; without it " + n.Instead}
	}
	return Finding{n.Name, Fail, "missing", n.Advice}
}

// sandboxFinding says what of the sandbox of attach the kernel has.
func sandboxFinding(landlock int) Finding {
	f := Finding{Check: "sandbox", State: OK, Found: fmt.Sprintf("capabilities, no new privileges, Landlock %d", landlock)}
	switch {
	case landlock == 0:
		f.State, f.Found = Warn, "capabilities and no new privileges, no Landlock"
		f.Advice = "attach may still use the files of its user; Linux 5.13 and later have Landlock, if it is in CONFIG_LSM or in lsm= of the boot line"
	case landlock < confine.LandlockTCP:
		f.State, f.Found = Warn, f.Found+", for files alone"
		f.Advice = "on Linux 6.7 and later attach gives up TCP too"
	}
	return f
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
	state, err := bpffs.Look()
	if err != nil {
		return failure("bpffs", err, "mount -t bpf bpf "+bpffs.Path)
	}
	if state == bpffs.Mounted {
		if err := bpffs.Usable(); err != nil {
			return failure("bpffs", err, "")
		}
	}
	return bpffsFinding(state, capabilities.Admin())
}

// examineSockets checks what the processes of flows need: dpclass record and the column
// PROCESS of dpclass flows.
func examineSockets() Finding {
	if err := owner.Missing(); err != nil {
		return Finding{"processes", Warn, err.Error(),
			strings.Join(append(fault.Advice(err), "without it dpclass flows shows no processes, and dpclass record needs --by name"), "; ")}
	}
	if missing := capabilities.MissingFor(capabilities.Record); len(missing) > 0 {
		return Finding{"processes", Warn, "missing: " + strings.Join(missing, ", "),
			"run as root for dpclass record, and for dpclass flows to know sockets that are older than the agent"}
	}
	return Finding{"processes", OK, "sockets can be watched", ""}
}

// bpffsFinding is the finding if the user may write to what is there.
func bpffsFinding(state bpffs.State, mayMount bool) Finding {
	switch {
	case state == bpffs.Mounted:
		return Finding{"bpffs", OK, "mounted at " + bpffs.Path, ""}
	case state == bpffs.Hidden:
		return Finding{"bpffs", Fail, bpffs.Path + " is not a bpf file system",
			"in ip netns exec, run dpclass outside with --netns NAME instead; in a container, mount -t bpf bpf " + bpffs.Path}
	case mayMount:
		return Finding{"bpffs", OK, "not mounted at " + bpffs.Path + " yet: attach mounts it", ""}
	}
	return Finding{"bpffs", Fail, bpffs.Path + " is not a bpf file system", "as root: mount -t bpf bpf " + bpffs.Path}
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
