// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"math"

	"github.com/dpclass/dpclass/flow"
)

// encodeVerdict returns the kernel's form of a verdict, the zero value if it has no source.
// With a source but no label, it says that the flow has no label. A label that the
// interface does not know is an error.
func (t *nameTable) encodeVerdict(v *flow.Verdict) (bpfVerdict, error) {
	if v.Source == flow.SourceNone {
		return bpfVerdict{}, nil
	}
	label, err := t.label(v.Label)
	if err != nil {
		return bpfVerdict{}, err
	}
	return bpfVerdict{
		Label: label, Source: bpfSource(v.Source), Model: t.model(v.Model),
		Final: bit(v.Final), Confidence: encodeConfidence(v.Confidence),
	}, nil
}

// decodeVerdict returns a verdict as the kernel holds it; a model's verdict that was
// withdrawn counts as no verdict.
func (t *nameTable) decodeVerdict(v *bpfVerdict) flow.Verdict {
	if v.Source == bpfSourceSourceModel && v.Label == bpfLabelUndecided {
		return flow.Verdict{}
	}
	return flow.Verdict{
		Label: t.name(uint16(v.Label)), Confidence: decodeConfidence(v.Confidence),
		Source: flow.Source(v.Source), Model: t.name(v.Model), Final: v.Final != 0,
	}
}

// encodeConfidence returns a probability in 65535ths; one that is not a number is 0.
func encodeConfidence(p float64) uint16 {
	if math.IsNaN(p) {
		return 0
	}
	return uint16(math.Round(min(max(p, 0), 1) * math.MaxUint16))
}

// decodeConfidence returns a probability to four digits, as precisely as it was stored.
func decodeConfidence(p uint16) float64 { return math.Round(float64(p)/math.MaxUint16*1e4) / 1e4 }
