// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"testing"

	"github.com/dpclass/dpclass/internal/vector"
)

func TestMadeUpPackets(t *testing.T) {
	packets, again := madeUpPackets(300), madeUpPackets(300)
	for i, packet := range packets {
		if !bytes.Equal(packet, again[i]) {
			t.Fatalf("packet %d differs on the second call", i)
		}
		parsed, reason := vector.Parse(packet, len(packet))
		if reason != vector.OK || !parsed.Sampled() || parsed.Length != len(packet) {
			t.Errorf("packet %d would not be sampled: %v, %+v", i, reason, parsed)
		}
	}
}
