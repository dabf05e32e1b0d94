// SPDX-License-Identifier: Apache-2.0

package offline

import (
	"time"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/dataset"
)

// trails is what the packets of a capture's flows say by themselves.
type trails struct {
	reading *classifier.Reading
	flows   map[*dataset.Flow]*classifier.Trail
}

func newTrails(c *classifier.Classifier) *trails {
	return &trails{c.Reading(), map[*dataset.Flow]*classifier.Trail{}}
}

// of returns the trail of a flow, a new one if it has none.
func (t *trails) of(f *dataset.Flow) *classifier.Trail {
	trail := t.flows[f]
	if trail == nil {
		trail = t.reading.Flow()
		t.flows[f] = trail
	}
	return trail
}

// read reads a payload packet.
func (t *trails) read(step *dataset.Step) {
	s := sampleOf(step)
	t.of(step.Flow).Add(&s)
}

// sampleOf returns a payload packet as a sample, which shares its memory.
func sampleOf(step *dataset.Step) flow.Sample {
	return flow.Sample{
		ID: flow.ID{Key: step.Flow.Key}, FromA: step.FromA, Inner: step.Raw, Index: step.Flow.Payloads - 1,
		Time: step.Time.UnixNano(), Length: step.Packet.Length, Packet: step.Data,
	}
}

// answerIf returns what reads DNS answers, nil if they are not to be read.
func (t *trails) answerIf(dns bool) func(message []byte, now time.Time) {
	if !dns {
		return nil
	}
	return func(message []byte, now time.Time) {
		// Most messages that name no address are fine, and the others are not ours to mend.
		_ = t.reading.Answer(message, now)
	}
}
