// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/abi"
	"github.com/dpclass/dpclass/internal/vector"
)

// TestABI fails when the pinned maps change without a new ABI: another dpclass would take
// over maps that it misreads.
func TestABI(t *testing.T) {
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	got, err := abi.Fingerprint(spec)
	if err != nil {
		t.Fatal(err)
	}
	if got != abiFingerprint {
		t.Errorf("the pinned maps have fingerprint %s, those of ABI %d %s: run make generate", got, ABI, abiFingerprint)
	}
}

// TestABIOfTypes: every type that another process reads from a pinned map is part of the fingerprint.
func TestABIOfTypes(t *testing.T) {
	for _, name := range []string{"flow", "flow_key6", "sample", "interface_info", "flow_evidence", "kept_sample", "dns_answer", "port_key"} {
		spec, err := loadBpf()
		if err != nil {
			t.Fatal(err)
		}
		var changed *btf.Struct
		if err := spec.Types.TypeByName(name, &changed); err != nil {
			t.Fatal(err)
		}
		before, err := abi.Fingerprint(spec)
		if err != nil {
			t.Fatal(err)
		}
		changed.Members[0].Name += "_changed"
		if after, err := abi.Fingerprint(spec); err != nil {
			t.Fatal(err)
		} else if after == before {
			t.Errorf("a change of struct %s leaves the fingerprint as it was", name)
		}
	}
}

// TestPinnedMaps: every map is pinned but those of one process, and bpftool prints the fields of flows by name.
func TestPinnedMaps(t *testing.T) {
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	pins := pinnedMaps(&bpfMaps{})
	if got, want := slices.Sorted(maps.Keys(pins)), abi.Pinned(spec); !slices.Equal(got, want) {
		t.Errorf("pinned are %q, want %q", got, want)
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
	labels = labels[:len(labels)-1] // last_label
	labels[0] = ""                  // undecided
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
	for n, name := range enum(t, "protocol") {
		want := "protocol_" + strings.ReplaceAll(flow.Protocol(n).String(), "-", "_")
		if n > 0 && name != want || n == 0 && name != "protocol_unknown" {
			t.Errorf("protocol %d is %q, want %q: run make generate", n, name, want)
		}
	}
	if got, want := len(enum(t, "protocol")), len(flow.Protocols())+1; got != want {
		t.Errorf("enum protocol has %d values, package flow %d protocols", got, want)
	}
	for n, name := range enum(t, "name_source") {
		if want := "name_" + flow.NameSource(n).String(); name != want && n > 0 {
			t.Errorf("name source %d is %q, want %q", n, name, want)
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
		if value.Value != uint64(n) && value.Name != "last_label" {
			t.Fatalf("enum %s: %q is %d, want %d", name, value.Name, value.Value, n)
		}
		names = append(names, value.Name)
	}
	return names
}
