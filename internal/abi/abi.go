// SPDX-License-Identifier: Apache-2.0

// Package abi computes a fingerprint of what a process must know to read pinned maps.
package abi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Unpinned are the maps that belong to one process.
var Unpinned = []string{"inbox", "scratch", "forgotten", "matching", "answer_copies", "headers", "shares", "births", "host_rooms"}

// Pinned returns the names of the maps of an object that are pinned, in order. Maps
// with constants and variables (.rodata, .bss) are not.
func Pinned(spec *ebpf.CollectionSpec) []string {
	names := slices.Sorted(maps.Keys(spec.Maps))
	return slices.DeleteFunc(names, func(name string) bool {
		return strings.HasPrefix(name, ".") || slices.Contains(Unpinned, name)
	})
}

// Fingerprint is a hash of the pinned maps of an object: kinds, sizes, and the BTF of
// keys and values, and of what the ring buffers hold. It does not depend on the labels and
// protocols that exist. The error says what the object's BTF lacks.
func Fingerprint(spec *ebpf.CollectionSpec) (string, error) {
	h := sha256.New()
	for _, name := range Pinned(spec) {
		layout(h, name, spec.Maps[name])
	}
	// BTF does not tie these to the maps samples and dns: a ring buffer has no value type.
	for _, name := range []string{"sample", "dns_answer"} {
		var record *btf.Struct
		if err := spec.Types.TypeByName(name, &record); err != nil {
			return "", fmt.Errorf("what a ring buffer holds: %w", err)
		}
		typeLayout(h, record)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// layout writes everything that a process must know to read the map.
func layout(w io.Writer, name string, m *ebpf.MapSpec) {
	fmt.Fprintf(w, "map %s %v %d %d", name, m.Type, m.KeySize, m.ValueSize)
	if m.Type == ebpf.Array || m.Type == ebpf.PerCPUArray {
		fmt.Fprintf(w, " %d", m.MaxEntries)
	}
	for _, part := range []btf.Type{m.Key, m.Value} {
		fmt.Fprint(w, "; ")
		if part != nil {
			typeLayout(w, part)
		}
	}
	fmt.Fprintln(w)
}

func typeLayout(w io.Writer, t btf.Type) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		fmt.Fprintf(w, "int %d %v", t.Size, t.Encoding)
	case *btf.Array:
		fmt.Fprintf(w, "[%d]", t.Nelems)
		typeLayout(w, t.Type)
	case *btf.Enum:
		fmt.Fprintf(w, "enum %s %d", t.Name, t.Size)
		if t.Name == "label" || t.Name == "protocol" {
			return // more may be added: an interface has its own map of labels, and the numbers of protocols never change
		}
		for _, value := range t.Values {
			fmt.Fprintf(w, " %s=%d", value.Name, value.Value)
		}
	case *btf.Struct:
		fmt.Fprintf(w, "struct %s %d {", t.Name, t.Size)
		for _, member := range t.Members {
			fmt.Fprintf(w, " %s@%d:", member.Name, member.Offset)
			typeLayout(w, member.Type)
		}
		fmt.Fprint(w, " }")
	default:
		fmt.Fprintf(w, "%v", t)
	}
}
