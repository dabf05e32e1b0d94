// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// FuzzDecodeSample: whatever is in the ring.
func FuzzDecodeSample(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, sampleHeader))
	f.Add(make([]byte, sampleHeader+1500))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s flow.Sample
		if decodeSample(raw, &s) && len(s.Packet) > len(raw)-sampleHeader {
			t.Fatalf("%d bytes out of %d", len(s.Packet), len(raw))
		}
	})
}
