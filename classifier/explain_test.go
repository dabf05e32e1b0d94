// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"math"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

func TestExplain(t *testing.T) {
	c := open(t, Options{})
	f := newTCPFlow(1, "192.0.2.1:443")
	samples := []flow.Sample{*f.sample(true, hello(t, streamingName)), *f.sample(false, []byte{0x16, 3, 3, 0, 80, 2, 0, 0, 76})}
	e, err := c.Explain(samples, flow.Evidence{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Verdicts[flow.Category].Label != "streaming" || e.Asked || e.Signature == "" || e.Service == nil || e.Service.App != "netflix" || e.Samples != 1 {
		t.Errorf("%+v", e)
	}
	top := e.Networks[flow.Category].Top
	if len(top) != topLabels || top[0].Probability < top[1].Probability || top[1].Probability < top[2].Probability || top[0].Probability > 1 {
		t.Errorf("top %+v", top)
	}
	if len(e.Parts) == 0 {
		t.Fatal("no part of the packets was looked at")
	}
	for i, part := range e.Parts {
		p := samples[part.Sample].Packet
		if part.Offset < 0 || part.Length <= 0 || part.Offset+part.Length > len(p) || math.IsNaN(part.Effect) || math.Abs(part.Effect) > 1 {
			t.Errorf("part %+v of a packet of %d bytes", part, len(p))
		}
		if i > 0 && math.Abs(part.Effect) > math.Abs(e.Parts[i-1].Effect) {
			t.Errorf("part %d matters more than the one before", i)
		}
	}
}

// The effect of a part is what the networks say without it.
func TestExplainEffect(t *testing.T) {
	c := open(t, Options{Evidence: EvidenceModel})
	f := newTCPFlow(1, "192.0.2.1:9000")
	s := *f.sample(true, []byte("some payload that no signature fits, as far as it goes"))
	e, err := c.Explain([]flow.Sample{s}, flow.Evidence{})
	if err != nil {
		t.Fatal(err)
	}
	label := e.Networks[flow.Category].Top[0]
	if !e.Asked || e.Verdicts[flow.Category].Source != flow.SourceModel {
		t.Errorf("%+v, want the network asked", e)
	}
	for _, part := range e.Parts[:3] {
		without := s
		without.Packet = append([]byte(nil), s.Packet...)
		clear(without.Packet[part.Offset : part.Offset+part.Length])
		again, err := c.Explain([]flow.Sample{without}, flow.Evidence{})
		if err != nil {
			t.Fatal(err)
		}
		got := 0.0
		for _, l := range again.Networks[flow.Category].Top {
			if l.Label == label.Label {
				got = l.Probability
			}
		}
		// Labels below the first three are not listed.
		if third := again.Networks[flow.Category].Top[2].Probability; got == 0 && label.Probability-part.Effect <= third+1e-3 {
			continue
		}
		if math.Abs(label.Probability-part.Effect-got) > 1e-3 {
			t.Errorf("%+v: the probability of %s is %g without it, %g with it", part, label.Label, got, label.Probability)
		}
	}
}

// A flow of which no packet is kept still has its name explained.
func TestExplainWithoutSamples(t *testing.T) {
	c := open(t, Options{})
	e, err := c.Explain(nil, flow.Evidence{Name: streamingName, NameSource: flow.NameDNS})
	if err != nil {
		t.Fatal(err)
	}
	if e.Service == nil || e.Evidence.Name != streamingName || e.Networks[flow.Category].Top != nil {
		t.Errorf("%+v", e)
	}
}
