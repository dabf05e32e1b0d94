// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// fingerprints has the fingerprint of the pinned maps of each ABI since there are any.
var fingerprints = map[int]string{
	2: "726f0ecb866df3bd",
}

// TestABI fails when the pinned maps change without a new ABI: another dpclass would take over maps that it
// misreads.
func TestABI(t *testing.T) {
	h := sha256.New()
	for name, m := range pinnedSpecs(t) {
		layout(h, name, m)
	}
	got := hex.EncodeToString(h.Sum(nil)[:8])
	for abi, frozen := range fingerprints {
		switch {
		case abi == ABI && got != frozen:
			t.Errorf("the pinned maps have fingerprint %s, those of ABI %d %s: raise ABI, and add the fingerprint here", got, abi, frozen)
		case abi != ABI && got == frozen:
			t.Errorf("the pinned maps are those of ABI %d, not %d", abi, ABI)
		}
	}
	if fingerprints[ABI] == "" {
		t.Errorf("no fingerprint of ABI %d: add %s", ABI, got)
	}
}

// pinnedSpecs yields the pinned maps as the object describes them, in order.
func pinnedSpecs(t *testing.T) func(func(string, *ebpf.MapSpec) bool) {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(string, *ebpf.MapSpec) bool) {
		for _, name := range slices.Sorted(maps.Keys(pinnedMaps(&bpfMaps{}))) {
			m := spec.Maps[name]
			if m == nil {
				t.Fatalf("pinned map %q is not in the object", name)
			}
			if !yield(name, m) {
				return
			}
		}
	}
}

// layout writes all that a process has to know to read the map.
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
		if t.Name == "label" {
			return // labels may be added: an interface's map labels has its own
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

// TestPinnedMaps: every map is pinned but those of one process, and bpftool prints the fields of flows by name.
func TestPinnedMaps(t *testing.T) {
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	pins := pinnedMaps(&bpfMaps{})
	own := []string{"inbox", "scratch", "forgotten"}
	for name := range spec.Maps {
		if pinned := pins[name] != nil; pinned == (slices.Contains(own, name) || strings.HasPrefix(name, ".")) {
			t.Errorf("map %q is pinned: %v", name, pinned)
		}
	}
	for _, name := range []string{"flows", "flows6", "pending", "pending6"} {
		value, ok := spec.Maps[name].Value.(*btf.Struct)
		if !ok || !slices.ContainsFunc(value.Members, func(m btf.Member) bool { return m.Name == "category" }) {
			t.Errorf("map %q: its value has no BTF field category: %v", name, spec.Maps[name].Value)
		}
	}
}

// TestEnums: the numbers that Go and C both name are the same in the object.
func TestEnums(t *testing.T) {
	labels := enum(t, "label")
	labels[0] = "" // undecided
	for n := range labels {
		labels[n] = strings.ReplaceAll(labels[n], "_", "-")
	}
	if !slices.Equal(labels, flow.Vocabulary) {
		t.Errorf("enum label is %q, the vocabulary %q: run make generate", labels, flow.Vocabulary)
	}
	for n, name := range enum(t, "source") {
		if want := strings.TrimSuffix("source_"+flow.Source(n).String(), "_"); strings.TrimSuffix(name, "_none") != want {
			t.Errorf("source %d is %q, want %q", n, name, want)
		}
	}
	for n, name := range enum(t, "direction") {
		if want := "direction_" + flow.Direction(n).String(); name != want {
			t.Errorf("direction %d is %q, want %q", n, name, want)
		}
	}
	if int(bpfLimitSnapLen) != vector.Size {
		t.Errorf("a sample holds %d bytes, a vector %d", bpfLimitSnapLen, vector.Size)
	}
}

// enum returns the names of an enum whose values are 0, 1, 2, ...
func enum(t *testing.T, name string) []string {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	var e *btf.Enum
	if err := spec.Types.TypeByName(name, &e); err != nil {
		t.Fatal(err)
	}
	var names []string
	for n, value := range e.Values {
		if value.Value != uint64(n) {
			t.Fatalf("enum %s: %q is %d, want %d", name, value.Name, value.Value, n)
		}
		names = append(names, value.Name)
	}
	return names
}
