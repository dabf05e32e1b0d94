// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	"github.com/dpclass/dpclass/flow"
)

const (
	keepBatch = 64 // samples that are stored at a time

	// keepPerTick bounds what keeping costs: at most this many samples in each keepEvery,
	// 2,000 a second. Under more load the samples of some flows are not kept.
	keepPerTick = 100
)

// keeper stores the first samples of flows where "dpclass explain" finds them. The zero
// value is ready.
type keeper struct {
	mu      sync.Mutex
	samples []flow.Sample
	packets [keepBatch][1500]byte
	spent   int // samples kept in this tick, of keepPerTick
}

// add copies a sample, and reports whether a batch is full.
func (k *keeper) add(s *flow.Sample) (full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spent == keepPerTick || len(k.samples) == keepBatch {
		return false
	}
	k.spent++
	room := &k.packets[len(k.samples)]
	kept := *s
	kept.Packet = room[:copy(room[:], s.Packet)]
	k.samples = append(k.samples, kept)
	return len(k.samples) == keepBatch
}

// flush hands the samples to store.
func (k *keeper) flush(store func([]flow.Sample) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.samples) == 0 {
		return nil
	}
	err := store(k.samples)
	k.samples = k.samples[:0]
	return err
}

// tick begins the next tick.
func (k *keeper) tick() {
	k.mu.Lock()
	k.spent = 0
	k.mu.Unlock()
}
