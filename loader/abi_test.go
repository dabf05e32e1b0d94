// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"github.com/dpclass/dpclass/flow"
)

// TestPinnedMaps holds the names and sizes of the maps against the C.
func TestPinnedMaps(t *testing.T) {
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	const key4, key6 = unsafe.Sizeof(bpfFlowKey{}), unsafe.Sizeof(bpfFlowKey6{})
	const value = unsafe.Sizeof(bpfFlow{})
	sizes := map[string][2]uintptr{
		"flows": {key4, value}, "flows6": {key6, value}, "pending": {key4, value}, "pending6": {key6, value},
		"samples": {0, 0}, "counters": {4, 8}, "policy": {4, unsafe.Sizeof(bpfPolicyState{})},
		"rules": {4, unsafe.Sizeof(bpfRule{})}, "rule_stats": {4, unsafe.Sizeof(bpfRuleCounts{})},
		"buckets": {4, 8}, "policy_source": {4, uintptr(maxSource)},
		"protect": {unsafe.Sizeof(bpfLpm4{}), 1}, "protect6": {unsafe.Sizeof(bpfLpm6{}), 1},
		"protect_ports": {unsafe.Sizeof(bpfProtectPort{}), 1}, "protect_flows": {key6, 1},
		"ended": {4, unsafe.Sizeof(bpfEndedFlow{})}, "sequence": {4, 8},
		"interface": {4, unsafe.Sizeof(bpfInterfaceInfo{})}, "agent": {4, unsafe.Sizeof(bpfAgentStats{})},
		"labels": {4, unsafe.Sizeof(storedName{})},
	}
	pins := pinnedMaps(&bpfMaps{})
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") || name == "inbox" || name == "scratch" || name == "forgotten" {
			continue
		}
		if pins[name] == nil {
			t.Errorf("map %q is not pinned", name)
		}
		size, known := sizes[name]
		if !known || size != [2]uintptr{uintptr(m.KeySize), uintptr(m.ValueSize)} {
			t.Errorf("map %q has keys of %d and values of %d bytes, Go has %v", name, m.KeySize, m.ValueSize, size)
		}
	}
	for name := range pins {
		if spec.Maps[name] == nil {
			t.Errorf("pinned map %q is none of the C's", name)
		}
	}
	for _, name := range []string{"flows", "flows6", "pending", "pending6"} {
		value, ok := spec.Maps[name].Value.(*btf.Struct)
		if !ok || !slices.ContainsFunc(value.Members, func(m btf.Member) bool { return m.Name == "category" }) {
			t.Errorf("map %q: its value has no BTF field category: %v", name, spec.Maps[name].Value)
		}
	}
}

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

func TestLabelsAreTheVocabulary(t *testing.T) {
	names := enum(t, "label")
	names[0] = "" // undecided
	for n := range names {
		names[n] = strings.ReplaceAll(names[n], "_", "-")
	}
	if !slices.Equal(names, flow.Vocabulary) {
		t.Errorf("enum label is %q, the vocabulary %q", names, flow.Vocabulary)
	}
}

// FuzzDecodeSample: whatever stands in the ring.
func FuzzDecodeSample(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, sampleHeader))
	f.Add(make([]byte, sampleHeader+1500))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s flow.Sample
		if decodeSample(raw, &s) && len(s.Packet) > len(raw)-sampleHeader {
			t.Fatalf("%d bytes out of %d", len(s.Packet), len(raw))
		}
	})
}
