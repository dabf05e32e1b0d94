// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dpclass/dpclass/loader"
)

// MemoryOptions configures Memory.
type MemoryOptions struct {
	Program string   // path of dpclass
	Library string   // ONNX Runtime's library; "": where the program finds it
	Cases   []string // empty: all of MemoryCases
	Log     *slog.Logger
}

// MemoryResult is one case of `dplab bench memory`: one run of dpclass.
type MemoryResult struct {
	Case    string  `json:"case"`
	Flows   int     `json:"flows"`
	Seconds float64 `json:"seconds"`
	MB      float64 `json:"mb"` // the largest resident set, in 10^6 bytes
	Machine string  `json:"machine"`
}

// memoryCase is one case: what dpclass is asked about so many flows.
type memoryCase struct {
	name  string
	flows int
	live  bool
	args  []string
}

func memoryCases() []memoryCase {
	return []memoryCase{
		{"classify-2m", 2_000_000, false, []string{"classify", "-o", "json", "-"}},
		{"flows-100k", 100_000, true, []string{"flows", device}},
		{"flows-100k-json", 100_000, true, []string{"flows", device, "-o", "json"}},
	}
}

// MemoryCases lists the names of the cases.
func MemoryCases() []string {
	var names []string
	for _, c := range memoryCases() {
		names = append(names, c.name)
	}
	return names
}

// Memory measures the time and the memory that dpclass takes for many flows: of a made-up
// capture, and of an interface whose flows are all decided. It calls each with every
// result. Live flows need root.
func Memory(ctx context.Context, o MemoryOptions, each func(MemoryResult) error) error {
	machine := Machine()
	for _, c := range memoryCases() {
		if len(o.Cases) > 0 && !slices.Contains(o.Cases, c.name) {
			continue
		}
		measure := c.offline
		if c.live {
			measure = c.onInterface
		}
		result, err := measure(ctx, o)
		if err != nil {
			return fmt.Errorf("case %q: %w", c.name, err)
		}
		result.Case, result.Flows, result.Machine = c.name, c.flows, machine
		if err := each(result); err != nil {
			return err
		}
	}
	return nil
}

func (c memoryCase) offline(ctx context.Context, o MemoryOptions) (MemoryResult, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return MemoryResult{}, err
	}
	defer in.Close()
	written := make(chan error, 1)
	go func() { written <- errors.Join(writeFlows(out, c.flows), out.Close()) }()
	result, err := c.run(ctx, o, in)
	in.Close() // ends the writer if the program did not read all; the deferred one then does nothing
	return result, errors.Join(err, <-written)
}

// writeFlows writes a pcap file of flows with one UDP packet each, of 64 random bytes.
func writeFlows(to io.Writer, flows int) error {
	out := bufio.NewWriterSize(to, 1<<16)
	head := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	head = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(head, 2), 4)
	head = binary.LittleEndian.AppendUint32(append(head, make([]byte, 8)...), 65535)
	if _, err := out.Write(binary.LittleEndian.AppendUint32(head, 1)); err != nil { // LINKTYPE_ETHERNET
		return err
	}
	packet := frame(17, netip.MustParseAddrPort("10.0.0.0:4000"), netip.MustParseAddrPort("192.0.2.1:7078"), 64)
	source, payload := packet[etherLen+12:], packet[len(packet)-64:]
	random := rand.New(rand.NewPCG(1, 2))
	var record [16]byte
	for i := range flows {
		binary.BigEndian.PutUint32(source, 10<<24+uint32(i))
		for k := 0; k < len(payload); k += 8 {
			binary.LittleEndian.PutUint64(payload[k:], random.Uint64())
		}
		binary.LittleEndian.PutUint32(record[0:], uint32(1_700_000_000+i/100_000))
		binary.LittleEndian.PutUint32(record[4:], uint32(i%100_000*10))
		binary.LittleEndian.PutUint32(record[8:], uint32(len(packet)))
		binary.LittleEndian.PutUint32(record[12:], uint32(len(packet)))
		if _, err := out.Write(record[:]); err != nil {
			return err
		}
		if _, err := out.Write(packet); err != nil {
			return err
		}
	}
	return out.Flush()
}

func (c memoryCase) onInterface(ctx context.Context, o MemoryOptions) (result MemoryResult, err error) {
	if err := checkRoot(); err != nil {
		return result, err
	}
	w, err := newWire()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	err = w.watched.Do(func() (err error) {
		at := slices.IndexFunc(kernelCases(), func(k kernelCase) bool { return k.decided && k.flows == c.flows })
		if at < 0 {
			return fmt.Errorf("no case of the kernel has %d decided flows", c.flows)
		}
		m := &kernelMeter{case_: &kernelCases()[at], log: o.Log, progress: func() {}}
		m.src, m.dst = netip.MustParseAddrPort("10.1.0.0:4000"), netip.MustParseAddrPort("192.168.0.1:443")
		m.frame = frame(m.case_.proto, m.src, m.dst, 18)
		if m.iface, err = loader.Attach(ctx, device, m.case_.config, o.Log); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.iface.Detach()) }()
		free, err := m.programs()
		defer func() { err = errors.Join(err, free()) }()
		if err != nil {
			return err
		}
		if err := m.begin(ctx); err != nil {
			return err
		}
		result, err = c.run(ctx, o, nil)
		return err
	})
	return result, err
}

// run runs dpclass and checks that it prints a line for each flow. The namespace is the
// caller's.
func (c memoryCase) run(ctx context.Context, o MemoryOptions, in *os.File) (result MemoryResult, err error) {
	args := c.args
	if o.Library != "" {
		args = append([]string{"--onnxruntime", o.Library}, args...)
	}
	program := exec.CommandContext(ctx, o.Program, args...)
	var said strings.Builder
	lines := &lineCounter{}
	program.Stdout, program.Stderr = lines, &said
	if in != nil {
		program.Stdin = in
	}
	began := time.Now()
	if err := program.Start(); err != nil {
		return result, err
	}
	done := make(chan error, 1)
	go func() { done <- program.Wait() }()
	// The peak that the kernel reports at the end would include that of this process,
	// which the child had before it became dpclass.
	for waiting := true; waiting; {
		select {
		case err = <-done:
			waiting = false
		case <-time.After(5 * time.Millisecond):
			result.MB = max(result.MB, peak(program.Process.Pid))
		}
	}
	result.Seconds = time.Since(began).Seconds()
	if err != nil {
		return result, fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(said.String()))
	}
	if lines.n < c.flows || lines.n > c.flows+2 { // a table has titles and a summary
		return result, fmt.Errorf("%s: %d lines for %d flows", program, lines.n, c.flows)
	}
	return result, nil
}

// peak returns the largest resident set of a process so far in 10^6 bytes, 0 if it has
// ended (VmHWM of proc_pid_status(5)).
func peak(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib * 1024 / 1e6
		}
	}
	return 0
}

// lineCounter counts lines.
type lineCounter struct{ n int }

func (l *lineCounter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b == '\n' {
			l.n++
		}
	}
	return len(p), nil
}
