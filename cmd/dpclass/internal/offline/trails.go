// SPDX-License-Identifier: Apache-2.0

package offline

import (
	"context"
	"slices"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
)

// trails is what the packets of a capture's flows say by themselves. A capture may be
// several files.
type trails struct {
	reading *classifier.Reading
	flows   map[flowOf]*classifier.Trail
	newest  []*classifier.Trail // the flows that began last, at most maxOpen
}

// maxOpen is how many flows may be open at once. An open flow may hold the beginning of a
// message, and a capture may have many whose rest is missing.
const maxOpen = 2048

// flowOf is a flow of a file.
type flowOf struct {
	file string
	key  flow.Key
}

func newTrails(c *classifier.Classifier) *trails {
	return &trails{reading: c.Reading(), flows: map[flowOf]*classifier.Trail{}}
}

// of returns the trail of a flow, a new one if it has none.
func (t *trails) of(file string, key flow.Key) *classifier.Trail {
	trail := t.flows[flowOf{file, key}]
	if trail == nil {
		trail = t.reading.Flow()
		t.flows[flowOf{file, key}] = trail
		if len(t.newest) == maxOpen {
			t.newest[0].Close()
			t.newest = t.newest[1:]
		}
		t.newest = append(t.newest, trail)
	}
	return trail
}

// close ends all flows.
func (t *trails) close() {
	for _, trail := range t.flows {
		trail.Close()
	}
}

// step reads a packet of a file: its payload, and with dns a DNS answer.
func (t *trails) step(file string, step *dataset.Step, dns bool) {
	if dns && isDNSAnswer(&step.Packet) {
		// Most messages that name no address are fine, and the others are not ours to mend.
		_ = t.reading.Answer(step.Data[step.Packet.Payload:][:step.Packet.Captured], step.Time)
	}
	if step.Sampled {
		s := sampleOf(step)
		t.of(file, step.Flow.Key).Add(&s)
	}
}

// together reads the files of one capture as one: their packets in the order of time. A
// live interface sees all of these flows too, and their names and DNS answers name others.
func (t *trails) together(ctx context.Context, files []string, dns bool) error {
	type source struct {
		file   string
		walker *dataset.Walker
		step   dataset.Step
	}
	var sources []*source
	for _, file := range files {
		reader, err := capture.Open(file)
		if err != nil {
			return err
		}
		defer reader.Close()
		sources = append(sources, &source{file: file, walker: dataset.NewWalker(reader)})
	}
	// next drops a source at its end. What is wrong with a damaged file is said when its
	// flows are scored.
	next := func(s *source) {
		var err error
		if s.step, err = s.walker.Next(); err != nil {
			sources = slices.DeleteFunc(sources, func(other *source) bool { return other == s })
		}
	}
	for _, s := range slices.Clone(sources) {
		next(s)
	}
	for packets := 0; len(sources) > 0; packets++ {
		if packets%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		first := slices.MinFunc(sources, func(a, b *source) int { return a.step.Time.Compare(b.step.Time) })
		t.step(first.file, &first.step, dns)
		next(first)
	}
	return nil
}

// sampleOf returns a payload packet as a sample, which shares its memory.
func sampleOf(step *dataset.Step) flow.Sample {
	return flow.Sample{
		ID: flow.ID{Key: step.Flow.Key}, FromA: step.FromA, Inner: step.Raw, Index: step.Flow.Payloads - 1,
		Time: step.Time.UnixNano(), Length: step.Packet.Length, Packet: step.Data,
	}
}

// isDNSAnswer reports whether a packet may be an answer of a DNS server: from UDP port 53,
// as the kernel selects them.
func isDNSAnswer(p *vector.Packet) bool {
	return p.Proto == vector.UDP && p.Src.Port() == flow.DNSPort && p.Captured > 0
}
