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
	round   int // how often the flows were sampled again from the start
}

// again says that the flows are sampled again from the start. What was kept of them stays:
// a flow's name is in its first packets.
func (k *keeper) again() {
	k.mu.Lock()
	k.round++
	k.mu.Unlock()
}

// add copies a sample, and reports whether a batch is full. budget is the number of samples
// that the kernel takes of a flow, 0 if it is not known.
func (k *keeper) add(s *flow.Sample, budget int) (full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spent == keepPerTick || len(k.samples) == keepBatch {
		return false
	}
	k.spent++
	room := &k.packets[len(k.samples)]
	kept := *s
	kept.Packet = room[:copy(room[:], s.Packet)]
	if budget > 0 {
		// After the samples of earlier rounds, as long as there is room.
		kept.Index += k.round % max(1, flow.MaxSamples/budget) * budget
	}
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
