// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// These tests find what the verifier of Linux 6.1 refuses and a newer one, which
// the tests usually run on, does not.

// TestLoops checks how clang laid out the loops. Linux 6.1 takes a loop only
// where a jump leads back to its head. It refuses a program where another
// instruction falls through to the head ("back-edge from insn 207 to 208"), which
// happens when clang puts the head after the body.
func TestLoops(t *testing.T) {
	for name, functions := range functionsOf(t) {
		for _, f := range functions {
			w := walk{slots: f, state: make([]int, len(f))}
			w.from(0)
			for _, edge := range w.refused {
				t.Errorf("%s: back-edge from insn %d to %d of %s", name, edge[0], edge[1], f[0].Symbol())
			}
		}
	}
}

// TestApplyWithoutLoop: kernels before 5.17 have no bpf_loop, and check each operation of a run by itself. They may check
// more than this kernel does, but at most a million instructions.
func TestApplyWithoutLoop(t *testing.T) {
	k := newKernel(t, Config{}, ethernet)
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != bpfProgDpclassApply {
			delete(spec.Programs, name)
		}
	}
	pinned := map[string]*ebpf.Map{}
	for name, m := range pinnedMaps(&k.maps) {
		spec.Maps[name].MaxEntries = (*m).MaxEntries()
		pinned[name] = *m
	}
	if err := set(spec, map[string]any{"has_bpf_loop": false, "both_ends": true, "fast_path": true}); err != nil {
		t.Fatal(err)
	}
	all, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	info, err := all.Programs[bpfProgDpclassApply].Info()
	if err != nil {
		t.Fatal(err)
	}
	checked, ok := info.VerifiedInstructions()
	if !ok {
		t.Skip("SKIPPED: the kernel does not say what it has checked")
	}
	if checked > 300_000 {
		t.Errorf("%d instructions to check", checked)
	}
}

// TestStack checks the stack of the functions that call each other. Linux 6.1
// counts each one's in steps of 32 bytes ("combined stack size of 2 calls is
// 544. Too large").
func TestStack(t *testing.T) {
	const limit, step = 512, 32

	for name, functions := range functionsOf(t) {
		var depth func(function string) int
		depth = func(function string) int {
			own, called := 1, 0
			var before *asm.Instruction
			for _, ins := range functions[function] {
				if ins == nil {
					continue
				}
				if ins.IsFunctionReference() {
					called = max(called, depth(ins.Reference()))
				}
				own = max(own, stackUsed(before, ins))
				before = ins
			}
			return (own+step-1)/step*step + called
		}
		if got := depth(name); got > limit {
			t.Errorf("%s: %d bytes of stack, more than %d", name, got, limit)
		}
	}
}

// stackUsed returns how far below the frame pointer an instruction reaches.
func stackUsed(before, ins *asm.Instruction) int {
	switch class := ins.OpCode.Class(); {
	case class.IsLoad() && ins.Src == asm.RFP, class.IsStore() && ins.Dst == asm.RFP:
		return -int(ins.Offset)
	case before != nil && before.OpCode == asm.Mov.Op(asm.RegSource) && before.Src == asm.RFP &&
		ins.OpCode == asm.Add.Op(asm.ImmSource) && ins.Dst == before.Dst:
		return -int(ins.Constant)
	}
	return 0
}

// function is the instructions of one function, in the units of jump offsets: nil
// represents the second half of a wide instruction.
type function []*asm.Instruction

// functionsOf returns each program's functions by name; one of them is the
// program itself.
func functionsOf(t *testing.T) map[string]map[string]function {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string]map[string]function{}
	for program, p := range spec.Programs {
		functions := map[string]function{}
		name := ""
		for n := range p.Instructions {
			ins := &p.Instructions[n]
			if ins.Symbol() != "" {
				name = ins.Symbol()
			}
			functions[name] = append(functions[name], ins)
			if ins.OpCode.IsDWordLoad() {
				functions[name] = append(functions[name], nil)
			}
		}
		programs[program] = functions
	}
	return programs
}

// walk visits a function depth first, as check_cfg of the kernel does.
type walk struct {
	slots   function
	state   []int
	refused [][2]int
}

const (
	unseen = iota
	open   // between the function's start and the present instruction
	done
)

func (w *walk) from(at int) {
	if w.state[at] != unseen {
		return
	}
	w.state[at] = open
	defer func() { w.state[at] = done }()

	code, next := w.slots[at].OpCode, at+1
	if code.IsDWordLoad() {
		next++
	}
	if !code.Class().IsJump() || code.JumpOp() == asm.Call {
		if w.state[next] == open {
			w.refused = append(w.refused, [2]int{at, next})
		}
		w.from(next)
		return
	}
	target := next + int(w.slots[at].Offset)
	switch code.JumpOp() {
	case asm.Exit:
	case asm.Ja:
		w.from(target)
	default:
		w.from(next)
		w.from(target)
	}
}
