// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// Keep stores samples, so that another process can read them with Kept. The kernel has room
// for 4096 samples and forgets the oldest.
func (t *Table) Keep(samples []flow.Sample) error {
	if len(samples) == 0 {
		return nil
	}
	keys, values := make([]bpfKeptKey, len(samples)), make([]bpfKeptSample, len(samples))
	for n := range samples {
		s, value := &samples[n], &values[n]
		keys[n] = bpfKeptKey{Generation: s.ID.Generation, Index: uint32(s.Index)}
		value.Sample = bpfSample{
			TimeNs: uint64(s.Time), Generation: s.ID.Generation, Length: uint32(s.Length),
			Captured: uint16(copy(value.Packet[:], s.Packet)), Index: uint8(s.Index), Direction: bpfDirection(s.Direction),
			FromA: bit(s.FromA), TwoWay: bit(s.TwoWay), Inner: bit(s.Inner),
		}
		value.Sample.Key, value.Sample.Family = wideKey(s.ID.Key)
	}
	if _, err := t.maps.Kept.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("keep %d samples: %w", len(samples), err)
	}
	return nil
}

// Kept returns the samples of a flow that Keep has stored and the kernel has not forgotten,
// by Index.
func (t *Table) Kept(generation uint32) ([]flow.Sample, error) {
	var samples []flow.Sample
	for index := range uint32(flow.MaxSamples) {
		value := new(bpfKeptSample)
		err := t.maps.Kept.Lookup(&bpfKeptKey{Generation: generation, Index: index}, value)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("kept sample %d of flow generation %d: %w", index, generation, err)
		}
		samples = append(samples, sampleOf(&value.Sample, value.Packet[:]))
	}
	return samples, nil
}
