// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/internal/fault"
)

func newDoctorCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine has what dpclass needs",
		Long: `Check the kernel and its features, privileges, the bpf file system, ONNX Runtime
and the models. Each line is ok, warn (something is missing that dpclass can do
without) or fail, with what to do. The exit code is 1 where anything fails.`,
		Example: "  dpclass doctor\n  sudo dpclass doctor -o json | jq 'select(.state != \"ok\")'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var findings []finding
			err := g.inNetns(func() error {
				findings = examine(g.onnxruntime)
				return nil
			})
			if err != nil {
				return err
			}
			return printFindings(cmd.OutOrStdout(), g.json(), findings)
		},
	}
}

// The states of a finding.
const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

func printFindings(out io.Writer, asJSON bool, findings []finding) error {
	failed := false
	color := wantColor(out)
	styles := map[string]style{stateOK: green, stateWarn: yellow, stateFail: red}
	encoder := json.NewEncoder(out)
	for _, f := range findings {
		failed = failed || f.State == stateFail
		var err error
		if asJSON {
			err = encoder.Encode(f)
		} else {
			line := paint(fmt.Sprintf("%-5s", f.State), styles[f.State], color) + fmt.Sprintf("%-14s %s", f.Check, f.Found)
			if f.Advice != "" {
				line += "\n" + strings.Repeat(" ", 20) + "-> " + f.Advice
			}
			_, err = fmt.Fprintln(out, line)
		}
		if err != nil {
			return err
		}
	}
	if failed {
		return quietError{errors.New("a check failed")}
	}
	return nil
}

// examine makes every check.
func examine(library string) []finding {
	findings := []finding{examineKernel(), examinePrivileges()}
	privileged := findings[1].State == stateOK
	findings = append(findings, examineFeatures(privileged)...)
	findings = append(findings, examineBTF(), examineJIT(), examineBPFFS(), examineLibrary(library))
	return append(findings, examineModels()...)
}

// kernelFull is the release from which every part works; kernelLeast the oldest
// that is supported at all.
var (
	kernelFull  = [2]int{6, 6}
	kernelLeast = [2]int{5, 15}
)

func examineKernel() finding {
	f := finding{Check: "kernel", State: stateOK}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return finding{"kernel", stateFail, err.Error(), "run dpclass on Linux"}
	}
	f.Found = unix.ByteSliceToString(name.Release[:])
	version, ok := kernelVersion(f.Found)
	switch {
	case !ok:
		f.State, f.Advice = stateWarn, fmt.Sprintf("the release cannot be read; dpclass wants %d.%d or newer", kernelFull[0], kernelFull[1])
	case older(version, kernelLeast):
		f.State, f.Advice = stateFail, fmt.Sprintf("install a kernel of release %d.%d or newer, better %d.%d",
			kernelLeast[0], kernelLeast[1], kernelFull[0], kernelFull[1])
	case older(version, kernelFull):
		f.State, f.Advice = stateWarn, fmt.Sprintf("%d.%d or newer has tcx; without it sent packets cannot be watched in the same way",
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

func examinePrivileges() finding {
	f := finding{Check: "privileges", State: stateOK, Found: "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return finding{"privileges", stateWarn, err.Error(), "mount /proc"}
	}
	if missing := missingCapabilities(string(text)); len(missing) > 0 {
		f.State, f.Found = stateFail, "without "+strings.Join(missing, ", ")
		f.Advice = "run as root (sudo dpclass doctor) for attach, flows, status, detach and policy; classify, eval and policy check need nothing"
	}
	return f
}

// missingCapabilities reads the effective set of /proc/self/status.
// CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
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
func examineFeatures(privileged bool) []finding {
	if !privileged {
		return []finding{{"features", stateWarn, "not asked: that needs privileges", "run as root to have them checked"}}
	}
	const update = "use a kernel that has it; the distribution's own has"
	return []finding{
		feature("XDP", stateFail, update, features.HaveProgramType(ebpf.XDP)),
		feature("tc", stateFail, update, features.HaveProgramType(ebpf.SchedCLS)),
		feature("tcx", stateWarn, "Linux 6.6 or newer has it: without it sent packets and --mode tc are limited", haveTCX()),
		feature("ring buffer", stateFail, "Linux 5.8 or newer has it", features.HaveMapType(ebpf.RingBuf)),
		feature("bpf_loop", stateFail, "Linux 5.17 or newer has it: verdicts are stored by it", features.HaveProgramHelper(ebpf.Syscall, asm.FnLoop)),
	}
}

func feature(name, worst, advice string, err error) finding {
	switch {
	case err == nil:
		return finding{name, stateOK, "there", ""}
	case errors.Is(err, ebpf.ErrNotSupported):
		return finding{name, worst, "missing", advice}
	}
	return finding{name, stateWarn, "cannot be told: " + shorten(err.Error(), 1), "attach says whether it works"}
}

// haveTCX asks for the tcx programs of the loopback device, whatever they are.
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

func examineBTF() finding {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return finding{"BTF", stateWarn, "the kernel's is missing", "dpclass works; bpftool may show less"}
	}
	return finding{"BTF", stateOK, "there", ""}
}

func examineJIT() finding {
	text, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	switch value := strings.TrimSpace(string(text)); {
	case err != nil:
		return finding{"BPF JIT", stateOK, "always on", ""} // CONFIG_BPF_JIT_ALWAYS_ON may hide it; the file needs root
	case value == "0":
		return finding{"BPF JIT", stateWarn, "off: packets cost several times more", "sysctl net.core.bpf_jit_enable=1"}
	default:
		return finding{"BPF JIT", stateOK, "on", ""}
	}
}

// bpffs is where pins live.
const bpffs = "/sys/fs/bpf"

func examineBPFFS() finding {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs, &fs); err != nil {
		return finding{"bpffs", stateFail, fmt.Sprintf("%s: %s", bpffs, err), "mount -t bpf bpf " + bpffs}
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return finding{"bpffs", stateFail, bpffs + " is not a bpf file system",
			"mount -t bpf bpf " + bpffs + "; inside ip netns exec leave that and use --netns NAME"}
	}
	return finding{"bpffs", stateOK, "mounted at " + bpffs, ""}
}

func examineLibrary(library string) finding {
	path, err := ort.Find(library)
	if err != nil {
		return finding{"ONNX Runtime", stateFail, err.Error(), strings.Join(fault.Advice(err), "; ") + "; --no-classify works without"}
	}
	version, err := ort.Version(library)
	if err != nil {
		return finding{"ONNX Runtime", stateFail, err.Error(), strings.Join(fault.Advice(err), "; ")}
	}
	return finding{"ONNX Runtime", stateOK, version + " at " + path, ""}
}

func examineModels() []finding {
	var findings []finding
	for _, name := range model.Shipped() {
		if _, err := model.Load(name); err != nil {
			findings = append(findings, finding{"model " + name, stateFail, shorten(err.Error(), 1), "install dpclass again"})
		}
	}
	models, err := loadModels(nil)
	if err != nil {
		return append(findings, finding{"models", stateFail, shorten(err.Error(), 1), "choose others: dpclass models use NAME"})
	}
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return append(findings, finding{"models", stateOK, fmt.Sprintf("%d found, in use: %s", len(model.Shipped()), strings.Join(names, ", ")), ""})
}
