// SPDX-License-Identifier: Apache-2.0

package vector_test

import (
	"bytes"
	"testing"

	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

func seed(f *testing.F) {
	f.Add([]byte{}, 0)
	for _, spec := range packettest.Specs(3) {
		data := spec.Build().Data
		f.Add(data, len(data))
	}
}

// FuzzParse checks that all offsets and lengths lie inside the packet.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte, frame int) {
		p, reason := vector.Parse(data, frame)
		if p.Length < 0 || (reason != vector.OK && p.Sampled()) {
			t.Fatalf("reason %s: %+v", reason, p)
		}
		if reason != vector.OK {
			return
		}
		if p.L4 < 20 || p.Payload < p.L4+8 || p.Payload > p.Length || p.Captured < 0 || p.Payload+p.Captured > max(len(data), p.Payload) {
			t.Fatalf("%+v of %d bytes", p, len(data))
		}
	})
}

// FuzzMake checks that the vector does not depend on the addresses, and that a packet cut
// to 1500 bytes has the same vector.
func FuzzMake(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte, _ int) {
		before := bytes.Clone(data)
		var once, again [vector.Size]byte
		vector.Make(&once, data, false)
		if !bytes.Equal(before, data) {
			t.Fatal("Make changed the packet")
		}
		vector.Make(&again, data[:min(len(data), vector.Size)], false)
		if once != again {
			t.Fatal("the vector of the packet cut to 1500 bytes differs")
		}
		from, to := 12, 20
		if once[0]>>4 == 6 {
			from, to = 8, 40
		}
		if !bytes.Equal(once[from:to], make([]byte, to-from)) {
			t.Fatal("the vector contains addresses")
		}
		if len(data) >= to {
			for i := from; i < to; i++ {
				data[i] ^= 0x5a
			}
			vector.Make(&again, data, false)
			if once != again {
				t.Fatal("the vector depends on the addresses")
			}
		}
	})
}
