// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"log/slog"
	"os"
	"testing"
)

func TestStrideVisitsAll(t *testing.T) {
	for _, n := range []int{1, 2, 10, 1000, 8192, 100_000} {
		seen := make([]bool, n)
		for i, at := 0, 0; i < n; i++ {
			if seen[at] {
				t.Fatalf("step %d of %d visits %d again", i, n, at)
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

// Kernel checks itself: it fails if the kernel's counters do not fit the case.
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
