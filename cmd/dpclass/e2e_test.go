// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// TestEndToEnd runs the real binary on real interfaces in network namespaces,
// with real programs on the wires, and asserts on what came out of the kernel.
func TestEndToEnd(t *testing.T) {
	s := newSuite(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"Replay", testReplay},
		{"Offload", testOffload},
		{"Jumbo", testJumbo},
		{"Verdict", testVerdict},
		{"Police", testPolice},
		{"Policy", testPolicy},
		{"Hosts", testHosts},
		{"Trial", testTrial},
		{"Queues", testQueues},
		{"Checksum", testChecksum},
		{"Fragments", testFragments},
		{"Forged", testForged},
		{"Applies", testApplies},
		{"Evidence", testEvidence},
		{"SSH", testSSH},
		{"Usage", testUsage},
		{"Captures", testCaptures},
		{"Models", testModels},
		{"Refusals", testRefusals},
		{"Interfaces", testInterfaces},
		{"Identity", testIdentity},
		{"Life", testLife},
		{"Died", testDied},
		{"Rights", testRights},
		{"Sandbox", testSandbox},
		{"Start", testStart},
		{"End", testEnd},
		{"Hung", testHung},
		{"Attaching", testAttaching},
		{"Recreated", testRecreated},
		{"NetnsDeleted", testNetnsDeleted},
		{"Persist", testPersist},
		{"Takeover", testTakeover},
		{"Ended", testEnded},
		{"Log", testLog},
		{"Mapped", testMapped},
		{"Watch", testWatch},
		{"Swap", testSwap},
		{"Train", testTrain},
		{"Lab", testLab},
		{"Record", testRecord},
		{"Processes", testProcesses},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// suite is the binary that is tested.
type suite struct {
	binary  string
	library string // ONNX Runtime's; "": not found
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, needs root: the end-to-end tests make network namespaces")
	}
	if os.Getenv(isolatedVariable) == "" {
		t.Skip("SKIPPED, no mount namespace: the end-to-end tests need CAP_SYS_ADMIN")
	}
	// As installed: the paper's networks are beside it.
	prefix := t.TempDir()
	s := &suite{binary: filepath.Join(prefix, "bin", "dpclass")}
	if err := os.CopyFS(filepath.Join(prefix, "share", "dpclass", "models"), os.DirFS("../../models/paper")); err != nil {
		t.Fatal(err)
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		tool = filepath.Join(runtime.GOROOT(), "bin", "go")
	}
	// -trimpath, as make has it: what it has built is in the cache.
	build := exec.Command(tool, "build", "-trimpath", "-o", s.binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	s.library = findLibrary(t)
	return s
}

// needLibrary skips what classifies where ONNX Runtime is missing.
func (s *suite) needLibrary(t *testing.T) {
	t.Helper()
	if s.library == "" {
		t.Skip(noLibrary)
	}
}

// testContext ends long before the tests' own time is up, so that a wait says
// what it waited for.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// result is the exit code and output of a run of dpclass.
type result struct {
	code     int
	out, err string
}

// env is the environment of dpclass; variables are added or replaced.
func (s *suite) env(variables ...string) []string {
	return append(append(os.Environ(), ort.LibraryVariable+"="+s.library, "SSH_CONNECTION="), variables...)
}

// run runs dpclass in the network namespace of a host.
func (s *suite) run(t *testing.T, h *lab.Host, args ...string) result {
	t.Helper()
	return s.runEnv(t, h, nil, args...)
}

func (s *suite) runEnv(t *testing.T, h *lab.Host, variables []string, args ...string) result {
	t.Helper()
	cmd, err := h.Command(testContext(t), s.binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errOut, s.env(variables...)
	p, err := h.StartCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return result{exitCode(t, p.Wait()), out.String(), errOut.String()}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode() // -1: a signal
	}
	t.Fatal(err)
	return 0
}

// want fails unless the call ended with the code; an error is to say all of the
// words, in at most four lines.
func (r result) want(t *testing.T, code int, says ...string) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	if code != cli.ExitDone && len(says) > 0 {
		checkError(t, r.err)
	}
	for _, word := range says {
		if !strings.Contains(r.out+r.err, word) {
			t.Errorf("%q is missing in:\n%s%s", word, r.out, r.err)
		}
	}
	return r
}

// attach starts an agent and waits until dpclass status says that it is ready.
// It is ended with the test.
func (s *suite) attach(t *testing.T, h *lab.Host, args ...string) *lab.Process {
	t.Helper()
	return s.attachEnv(t, h, nil, args...)
}

func (s *suite) attachEnv(t *testing.T, h *lab.Host, variables []string, args ...string) *lab.Process {
	t.Helper()
	p := s.startAttach(t, h, variables, args...)
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			break // the interfaces come first
		}
		err := lab.Until(testContext(t), "status of "+arg, func() (bool, error) {
			select {
			case <-p.Done():
				return false, fmt.Errorf("attach ended: %w: %s", p.Wait(), p.Output())
			default:
				return s.run(t, h, "status", arg).code == cli.ExitDone, nil
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (s *suite) startAttach(t *testing.T, h *lab.Host, variables []string, args ...string) *lab.Process {
	t.Helper()
	cmd, err := h.Command(context.WithoutCancel(t.Context()), s.binary, append([]string{"attach"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = s.env(variables...)
	p, err := h.StartCommand(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// flows returns the flows of an interface as the kernel has them.
func (s *suite) flows(t *testing.T, h *lab.Host, iface string, args ...string) map[flow.Key]flow.Record {
	t.Helper()
	out := s.run(t, h, append([]string{"flows", iface, "-o", "json"}, args...)...).want(t, cli.ExitDone).out
	return readRecords(t, out)
}

func readRecords(t *testing.T, out string) map[flow.Key]flow.Record {
	t.Helper()
	records := map[flow.Key]flow.Record{}
	for line := range strings.Lines(out) {
		var r flow.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if twice, ok := records[r.Key()]; ok {
			t.Errorf("flow %q twice: %+v, %+v", r.Key(), twice, r)
		}
		records[r.Key()] = r
	}
	return records
}

// waitFlow waits until a flow is seen, and returns it.
func (s *suite) waitFlow(t *testing.T, h *lab.Host, iface string, key flow.Key) (found flow.Record) {
	t.Helper()
	err := lab.Until(testContext(t), "flow "+key.String(), func() (ok bool, err error) {
		found, ok = s.flows(t, h, iface)[key]
		return ok, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func parseKey(t *testing.T, expression string) flow.Key {
	t.Helper()
	key, err := flow.ParseKey(expression)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// status returns the status of an interface.
func (s *suite) status(t *testing.T, h *lab.Host, iface string) (status loader.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.run(t, h, "status", iface, "-o", "json").out), &status); err != nil {
		t.Fatal(err)
	}
	return status
}

// start captures on a device; the function that it returns ends that and returns
// the file.
func start(t *testing.T, h *lab.Host, iface string, filter ...string) (stop func() string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), h.Name()+".pcap")
	p, err := h.Capture(testContext(t), iface, file, filter...)
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		t.Helper()
		// What it has not read when it is interrupted, it forgets. It may have received
		// packets that it never reads: some from before its filter was set.
		const settled = 20
		err := lab.Until(testContext(t), "tcpdump has read everything", func() (bool, error) {
			var captured, received int
			said := strings.Split(strings.TrimSpace(p.Output()), "\n")
			last := said[len(said)-1]
			n, _ := fmt.Sscanf(last, "tcpdump: %d packets captured, %d packets received", &captured, &received)
			same := len(said) > settled && !slices.ContainsFunc(said[len(said)-settled:], func(line string) bool { return line != last })
			return n == 2 && (captured == received || same), p.Signal(syscall.SIGUSR1)
		})
		if err == nil {
			err = p.Interrupt()
		}
		if err != nil || !strings.Contains(p.Output(), "\n0 packets dropped by kernel") {
			t.Fatalf("tcpdump: %v: %s", err, p.Output())
		}
		return file
	}
}

// tally is what a capture holds of a flow.
type tally struct {
	packets, bytes uint64
	last           time.Time    // of the last packet
	tos            map[byte]int // packets by type of service or traffic class
	badSums        int          // IPv4 headers with a wrong checksum
}

// count counts the flows of a capture file from `after` on. What tcpdump has not
// written whole yet is left out.
func count(t *testing.T, file string, after time.Time) map[flow.Key]*tally {
	t.Helper()
	reader, err := capture.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	counts := map[flow.Key]*tally{}
	walker := dataset.NewWalker(reader)
	for {
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) {
			return counts
		}
		if err != nil {
			t.Fatal(err)
		}
		if step.Time.Before(after) {
			continue
		}
		c := counts[step.Flow.Key]
		if c == nil {
			c = &tally{tos: map[byte]int{}}
			counts[step.Flow.Key] = c
		}
		c.packets++
		c.bytes += uint64(step.Packet.Length)
		c.last = step.Time
		if step.Data[0]>>4 == 4 {
			c.tos[step.Data[1]]++
			if checksum(step.Data[:int(step.Data[0]&15)*4]) != 0xffff {
				c.badSums++
			}
		} else {
			c.tos[step.Data[0]<<4|step.Data[1]>>4]++
		}
	}
}

// checksum is the sum of RFC 1071: 0xffff over a header whose checksum is right.
func checksum(header []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(header); i += 2 {
		sum += uint32(header[i])<<8 | uint32(header[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// sameCounts returns how the flows differ from what a capture holds.
func sameCounts(flows map[flow.Key]flow.Record, counts map[flow.Key]*tally) error {
	var problems []error
	for key, c := range counts {
		r, ok := flows[key]
		if !ok {
			problems = append(problems, fmt.Errorf("flow %q was not seen: %d packets", key, c.packets))
		} else if r.Packets != c.packets || r.Bytes != c.bytes {
			problems = append(problems, fmt.Errorf("flow %q: %d packets of %d bytes, on the wire %d of %d", key, r.Packets, r.Bytes, c.packets, c.bytes))
		}
		if ok && (r.Packets != r.PacketsIn+r.PacketsOut || r.Bytes != r.BytesIn+r.BytesOut) {
			problems = append(problems, fmt.Errorf("flow %q: in and out are not the whole: %+v", key, r.Live))
		}
	}
	for key := range flows {
		if counts[key] == nil {
			problems = append(problems, fmt.Errorf("flow %q is not on the wire", key))
		}
	}
	return errors.Join(problems...)
}

// objects are the kernel's numbers of programs and maps.
type objects struct {
	programs []ebpf.ProgramID
	maps     []ebpf.MapID
}

// ours returns what dpclass has in the kernel: the maps that are pinned, and the
// programs that use them.
func ours(t *testing.T) (o objects) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(bpffs, "dpclass"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), "link_") {
			return err
		}
		m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return fmt.Errorf("pin %q: %w", path, err)
		}
		defer m.Close()
		info, err := m.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		o.maps = append(o.maps, id)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			return o
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone meanwhile
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			continue
		}
		uses, _ := info.MapIDs()
		if slices.ContainsFunc(uses, func(m ebpf.MapID) bool { return slices.Contains(o.maps, m) }) {
			o.programs = append(o.programs, id)
		}
	}
}

// nothingLeft fails unless all of it is gone, no pin is left and no program is on
// a device of the hosts.
func nothingLeft(t *testing.T, before objects, hosts ...*lab.Host) {
	t.Helper()
	if len(before.programs) == 0 || len(before.maps) == 0 {
		t.Errorf("nothing of ours was in the kernel: %+v", before)
	}
	// The kernel frees in the background.
	err := lab.Until(testContext(t), "programs and maps gone", func() (bool, error) {
		for _, id := range before.programs {
			if p, err := ebpf.NewProgramFromID(id); err == nil {
				return false, p.Close()
			}
		}
		for _, id := range before.maps {
			if m, err := ebpf.NewMapFromID(id); err == nil {
				return false, m.Close()
			}
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
	noPins(t)
	for _, h := range hosts {
		out, err := h.Run(testContext(t), "bpftool", "-j", "net")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, `"id"`) || strings.Contains(out, "prog_id") {
			t.Errorf("a program is left on host %q: %s", h.Name(), out)
		}
	}
}

func noPins(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(bpffs)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".debug") { // the kernel's own
			t.Errorf("%s/%s is left", bpffs, entry.Name())
		}
	}
}

// pair makes two hosts with a wire between their eth0: 10.0.1.1 and fd00:1::1,
// 10.0.1.2 and fd00:1::2.
func pair(t *testing.T, noOffload bool) (near, far *lab.Host) {
	t.Helper()
	l := lab.ForTest(t)
	hosts := map[string]*lab.Host{}
	for _, name := range []string{"near", "far"} {
		h, err := l.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		hosts[name] = h
	}
	near, far = hosts["near"], hosts["far"]
	err := l.Wire(lab.Wire{
		A:         lab.End{Host: near, Iface: "eth0", Addrs: []string{"10.0.1.1/24", "fd00:1::1/64"}},
		B:         lab.End{Host: far, Iface: "eth0", Addrs: []string{"10.0.1.2/24", "fd00:1::2/64"}},
		NoOffload: noOffload,
	})
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// routed makes a client and a server with a router between them.
func routed(t *testing.T, topology lab.Topology) *lab.Routed {
	t.Helper()
	r, err := lab.ForTest(t).Router(topology)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// save writes a file into a folder of the test's and returns its path.
func save(t *testing.T, name, text string) string {
	t.Helper()
	return offlineSave(t, filepath.Join(t.TempDir(), name), []byte(text))
}
