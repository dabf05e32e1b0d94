// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

const (
	xdpDrop = 1
	xdpPass = 2
	tcNext  = -1 // TCX_NEXT
)

// empty loads a program that passes every packet.
func empty(kind ebpf.ProgramType) (*ebpf.Program, error) {
	verdict := int32(tcNext)
	if kind == ebpf.XDP {
		verdict = xdpPass
	}
	return load(kind, asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()})
}

func load(kind ebpf.ProgramType, code asm.Instructions) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{Name: "dpclass_bench", Type: kind, License: "GPL", Instructions: code}
	if kind == ebpf.XDP {
		// As the loader does: a tail call needs the same flags on both programs.
		spec.AttachType = ebpf.AttachXDP
		if features.HaveProgramHelper(ebpf.XDP, asm.FnXdpLoadBytes) == nil {
			spec.Flags = unix.BPF_F_XDP_HAS_FRAGS
		}
	}
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load a test program: %w", err)
	}
	return program, nil
}

// lookUp loads an XDP program that only looks up one IPv4 flow, to measure what the
// lookup itself costs on this machine. The program drops the packet if the flow is
// missing.
func lookUp(flows *ebpf.Map, key []byte) (*ebpf.Program, error) {
	var code asm.Instructions
	for at := 0; at < len(key); at += 8 {
		code = append(code,
			asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(key[at:])), asm.DWord),
			asm.StoreMem(asm.RFP, int16(at-len(key)), asm.R1, asm.DWord))
	}
	return load(ebpf.XDP, append(code,
		asm.LoadMapPtr(asm.R1, flows.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(-len(key))),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "missing"),
		asm.Mov.Imm(asm.R0, xdpPass),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("missing"),
		asm.Return(),
	))
}

// mapOf opens the map of that name that the program uses.
func mapOf(program *ebpf.Program, name string) (*ebpf.Map, error) {
	info, err := program.Info()
	if err != nil {
		return nil, fmt.Errorf("maps of the program: %w", err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, fmt.Errorf("map %q: %w", name, err)
		}
		if info, err := m.Info(); err == nil && info.Name == name {
			return m, nil
		}
		m.Close()
	}
	return nil, fmt.Errorf("map %q: the program does not use it", name)
}

// mapOfGeneral returns a map of the program that an XDP program goes on with.
func mapOfGeneral(program *ebpf.Program, name string) (*ebpf.Map, error) {
	next, err := mapOf(program, "general_xdp")
	if err != nil {
		return nil, err
	}
	defer next.Close()
	var general *ebpf.Program
	if err := next.Lookup(uint32(0), &general); err != nil {
		return nil, fmt.Errorf("program of the general way: %w", err)
	}
	defer general.Close()
	return mapOf(general, name)
}

// edit returns code that changes the packet before each run: a test run passes the
// packet of one run on to the next, and some cases need a different packet each time.
// R7 points to the packet, whose Ethernet and IPv4 headers are inside the checked
// bounds. R9 points to 8 bytes of state, zero at first. The code must not change R6.
type edit func() asm.Instructions

// steered is an XDP program that edits the packet and then tail-calls another program.
// Ours and the empty one both run after it, so the difference between them stays
// the same.
type steered struct {
	*ebpf.Program
	state, next *ebpf.Map
}

func (s *steered) Close() error {
	return errors.Join(s.Program.Close(), s.state.Close(), s.next.Close())
}

func steer(to *ebpf.Program, change edit) (_ *steered, err error) {
	s := &steered{}
	defer func() {
		if err == nil {
			return
		}
		for _, m := range []*ebpf.Map{s.state, s.next} {
			if m != nil {
				m.Close()
			}
		}
	}()
	s.state, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("map for the tail call: %w", err)
	}
	s.next, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("map for the tail call: %w", err)
	}
	if err := s.next.Put(uint32(0), to); err != nil {
		return nil, fmt.Errorf("tail call: %w", err)
	}
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word), // xdp_md.data
		asm.LoadMem(asm.R8, asm.R6, 4, asm.Word), // xdp_md.data_end
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, etherLen+ipv4Len),
		asm.JGT.Reg(asm.R2, asm.R8, "pass"),
		asm.LoadMapValue(asm.R9, s.state.FD(), 0),
	}
	code = append(code, change()...)
	code = append(code,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, s.next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return(),
	)
	if s.Program, err = load(ebpf.XDP, code); err != nil {
		return nil, err
	}
	return s, nil
}

// nextSource gives each packet the IPv4 source of another flow: one of `flows`
// addresses from `first` on, in steps that the cache cannot predict.
func nextSource(first uint32, flows int) edit {
	return func() asm.Instructions {
		return asm.Instructions{
			asm.LoadMem(asm.R1, asm.R9, 0, asm.Word),
			asm.Add.Imm(asm.R1, int32(stride(flows))),
			asm.JLT.Imm(asm.R1, int32(flows), "store"),
			asm.Sub.Imm(asm.R1, int32(flows)),
			asm.StoreMem(asm.R9, 0, asm.R1, asm.Word).WithSymbol("store"),
			asm.Add.Imm(asm.R1, int32(first)),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.StoreMem(asm.R7, etherLen+12, asm.R1, asm.Word),
		}
	}
}

// stride returns a step, near the golden section of n, that visits all of 0..n-1
// (modulo n).
func stride(n int) int {
	gcd := func(a, b int) int {
		for b != 0 {
			a, b = b, a%b
		}
		return a
	}
	step := int(float64(n) * 0.6180339887)
	for step > 1 && gcd(step, n) != 1 {
		step--
	}
	return max(step, 1)
}

// undoDSCP restores the DSCP and the checksum, so that each packet has to be marked.
func undoDSCP(original []byte) edit {
	checksum := binary.NativeEndian.Uint16(original[etherLen+10:])
	return func() asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.R7, etherLen+1, int64(original[etherLen+1]), asm.Byte),
			asm.Mov.Imm(asm.R1, int32(checksum)),
			asm.StoreMem(asm.R7, etherLen+10, asm.R1, asm.Half),
		}
	}
}
