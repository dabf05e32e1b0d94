// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

func TestFrame(t *testing.T) {
	for _, test := range []struct{ src, dst string }{
		{"10.0.0.1:1", "10.0.0.2:2"}, {"[fd00::1]:1", "[fd00::2]:2"},
	} {
		for _, proto := range []flow.Proto{flow.TCP, flow.UDP} {
			src, dst := netip.MustParseAddrPort(test.src), netip.MustParseAddrPort(test.dst)
			packet := frame(proto, src, dst, 33)[etherLen:]
			parsed, reason := vector.Parse(packet, len(packet))
			if reason != vector.OK || parsed.Src != src || parsed.Dst != dst || parsed.Length != len(packet) || !parsed.Sampled() {
				t.Errorf("%v %v to %v: %v, %+v", proto, src, dst, reason, parsed)
			}
		}
	}
}

func TestStrideMeetsAll(t *testing.T) {
	for _, n := range []int{1, 2, 10, 1000, 8192, 100_000} {
		seen := make([]bool, n)
		for i, at := 0, 0; i < n; i++ {
			if seen[at] {
				t.Fatalf("%d of %d steps meet %d again", i, n, at)
			}
			seen[at] = true
			at = (at + stride(n)) % n
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median %v, want 5", got)
	}
	if got := median(nil); got != 0 {
		t.Errorf("median of nothing %v", got)
	}
}

// The measurement checks itself by what the kernel counted.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, needs root: the bench makes namespaces and loads BPF programs")
	}
	want := []string{"lookup-alone", "policed", "dscp", "sampled", "egress-ipv4-tcp", "flows-1k"}
	var got []string
	err := Kernel(t.Context(), KernelOptions{Cases: want, Rounds: 1, Log: slog.New(slog.DiscardHandler)}, func(r KernelResult) error {
		got = append(got, r.Case)
		if r.NS <= 0 || r.EmptyNS <= 0 {
			t.Errorf("measured nothing: %+v", r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("cases %q, want %q", got, want)
	}
}
