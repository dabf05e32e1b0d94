// SPDX-License-Identifier: Apache-2.0

package offline

import (
	"context"
	"slices"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/dataset"
)

// Explain gives verdicts on the samples of one flow and says why. known is a name that the
// flow has from elsewhere.
func (r *Reader) Explain(samples []flow.Sample, known flow.Evidence) (*classifier.Explanation, error) {
	return r.classifier.Explain(samples, known)
}

// Samples reads a capture file again and returns the first payload packets of each of the
// flows, as many as the classifier looks at.
func (r *Reader) Samples(ctx context.Context, name string, records []flow.Record) ([][]flow.Sample, error) {
	number := map[flow.Key]int{}
	for i := range records {
		number[records[i].Key()] = i
	}
	samples := make([][]flow.Sample, len(records))
	budget := r.classifier.Budget()
	_, err := r.walk(ctx, name, nil, func(step *dataset.Step) error {
		i, wanted := number[step.Flow.Key]
		if wanted && step.Sampled && len(samples[i]) < budget {
			s := sampleOf(step)
			s.Packet = slices.Clone(s.Packet)
			samples[i] = append(samples[i], s)
		}
		return nil
	})
	return samples, err
}
