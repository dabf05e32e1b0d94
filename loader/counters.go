// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// reasons returns the names of enum reason, by number.
var reasons = sync.OnceValues(func() ([]string, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("BPF objects: %w", err)
	}
	var reason *btf.Enum
	if err := spec.Types.TypeByName("reason", &reason); err != nil {
		return nil, fmt.Errorf("BPF objects: %w", err)
	}
	names := make([]string, bpfReasonReasonCount)
	for _, value := range reason.Values {
		if value.Value < uint64(len(names)) {
			names[value.Value] = strings.TrimPrefix(value.Name, "reason_")
		}
	}
	return names, nil
})

// Counters returns how often each reason was counted, over all CPUs.
func (p *Pins) Counters() (map[string]uint64, error) {
	names, err := reasons()
	if err != nil {
		return nil, err
	}
	counters := map[string]uint64{}
	for n, name := range names {
		var perCPU []uint64
		if err := p.maps.Counters.Lookup(uint32(n), &perCPU); err != nil {
			return nil, fmt.Errorf("counter %q: %w", name, err)
		}
		var sum uint64
		for _, c := range perCPU {
			sum += c
		}
		counters[name] = sum
	}
	return counters, nil
}
