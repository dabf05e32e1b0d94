// SPDX-License-Identifier: Apache-2.0

package offline

import (
	"context"
	"iter"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
)

// File is a capture file with its flows' verdicts. The caller closes it.
type File struct {
	Frames   int
	Passed   []Passed // packets that belong to no flow
	Warnings []error  // what is odd about the capture, and what is damaged after at least one packet

	flows  *dataset.Walker
	stream *classifier.Stream
}

// Passed counts packets that belong to no flow for one reason.
type Passed struct {
	Reason  string
	Packets int
}

// Classify returns the flows of a capture file with the verdicts that a live interface
// would give them: from the first payload packets, with the same early stop. All
// packets of a 5-tuple are one flow. tick gets the number of packets read so far.
func (r *Reader) Classify(ctx context.Context, name string, tick func(packets int)) (*File, error) {
	file := &File{stream: r.classifier.Stream()}
	found, err := r.walk(ctx, name, tick, func(step *dataset.Step) error {
		if r.DNS && isDNSAnswer(&step.Packet) {
			// Most messages that name no address are fine, and the others are not ours to mend.
			_ = file.stream.Answer(step.Data[step.Packet.Payload:][:step.Packet.Captured], step.Time)
		}
		if !step.Sampled {
			return nil
		}
		s := sampleOf(step)
		return file.stream.Add(step.Flow.Number, &s)
	})
	if err == nil {
		err = file.stream.Flush()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	file.Frames, file.Warnings, file.flows = found.stats.Frames, found.warnings, found.flows
	other := found.stats.Frames - found.stats.Packets
	for _, unread := range found.unread {
		other -= unread.Frames
		file.Passed = append(file.Passed, Passed{"link type " + unread.Link, unread.Frames})
	}
	if other > 0 {
		file.Passed = append(file.Passed, Passed{"not_ip", other})
	}
	for reason := vector.OK + 1; reason < vector.Reasons; reason++ {
		if n := found.flows.Passed(reason); n > 0 {
			file.Passed = append(file.Passed, Passed{reason.String(), n})
		}
	}
	if n := found.flows.LeftOut(); n > 0 {
		file.Passed = append(file.Passed, Passed{"seen on another interface", n})
	}
	return file, nil
}

// Flows returns the flows in the order of their first packets. Each record is made when it
// is asked for: a capture may have millions.
func (f *File) Flows() iter.Seq[*flow.Record] {
	return func(yield func(*flow.Record) bool) {
		for from := range f.flows.Flows() {
			record := &flow.Record{
				Src: from.Src.Addr(), Dst: from.Dst.Addr(), SrcPort: from.Src.Port(), DstPort: from.Dst.Port(),
				Proto: from.Key.Proto.String(), Packets: from.Packets, Bytes: from.Bytes, FirstSeen: from.First, LastSeen: from.Last,
			}
			if from.Payloads > 0 {
				verdicts, evidence, samples := f.stream.Verdicts(from.Number, &from.Key)
				record.SetVerdicts(&verdicts)
				record.SetEvidence(&evidence)
				record.Samples = samples
			}
			if !yield(record) {
				return
			}
		}
	}
}

// Close frees what the file holds.
func (f *File) Close() { f.stream.Close() }
