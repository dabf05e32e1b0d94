// SPDX-License-Identifier: Apache-2.0

package offline

import (
	"context"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
)

// File is a capture file with its flows' verdicts.
type File struct {
	Records []flow.Record // in the order of the flows' first packets
	Frames  int
	Passed  []Passed // packets that belong to no flow
	Warning error    // the capture is damaged after at least one packet; nil: it is whole
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
	rows := map[*dataset.Flow]*classifier.Probabilities{}
	trails := newTrails(r.classifier)
	defer trails.close()
	found, err := r.run(ctx, name, pass{
		perFlow: r.classifier.Samples(), tick: tick, read: func(step *dataset.Step) { trails.step(name, step, r.DNS) },
		each: func(f *dataset.Flow, one classifier.Probabilities) {
			all := rows[f]
			if all == nil {
				all = &classifier.Probabilities{}
				rows[f] = all
			}
			all.Append(one)
		},
	})
	if err != nil {
		return nil, err
	}
	file := &File{Frames: found.stats.Frames, Warning: found.warning}
	for _, f := range found.flows {
		record := flow.Record{
			Src: f.Src.Addr(), Dst: f.Dst.Addr(), SrcPort: f.Src.Port(), DstPort: f.Dst.Port(), Proto: f.Key.Proto.String(),
			Packets: f.Packets, Bytes: f.Bytes, FirstSeen: f.First, LastSeen: f.Last,
		}
		if rows := rows[f]; rows != nil {
			verdicts, evidence, samples := r.classifier.Decide(rows, trails.of(name, f.Key))
			record.SetVerdicts(&verdicts)
			record.SetEvidence(&evidence)
			record.Samples = samples
		} else if f.Key.IsDNS() { // as bpf/flow.h does
			dns, _ := flow.ParseProtocol("dns")
			record.SetEvidence(&flow.Evidence{Protocol: dns})
		}
		file.Records = append(file.Records, record)
	}
	if n := found.stats.Frames - found.stats.Packets; n > 0 {
		file.Passed = append(file.Passed, Passed{"not_ip", n})
	}
	for reason := vector.OK + 1; reason < vector.Reasons; reason++ {
		if n := found.passed[reason]; n > 0 {
			file.Passed = append(file.Passed, Passed{reason.String(), n})
		}
	}
	return file, nil
}
