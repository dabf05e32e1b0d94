// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"context"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// many is a source of n flows.
func many(n int) Source {
	now := time.Now()
	return func(each func(*flow.Record) bool) error {
		live := flow.Live{PacketsIn: 3, BytesIn: 300}
		r := *call443()
		r.Live = &live
		for i := range n {
			r.Src = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			r.Bytes, r.FirstSeen, r.LastSeen = uint64(1000+i%977), now.Add(-time.Duration(i)*time.Millisecond), now
			live.Generation = uint32(i)
			if !each(&r) {
				break
			}
		}
		return nil
	}
}

// BenchmarkPrint prints a table of 100,000 flows, after two reads without a pause. With the
// maps of an interface: dplab bench memory.
func BenchmarkPrint(b *testing.B) {
	for b.Loop() {
		view := View{Source: many(100_000), Keep: func(*flow.Record) bool { return true }, Sort: "rate", Interval: 1, What: "flows"}
		if err := view.Print(context.Background(), io.Discard, true); err != nil {
			b.Fatal(err)
		}
	}
}
