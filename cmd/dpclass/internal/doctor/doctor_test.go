// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
)

func TestKernelVersion(t *testing.T) {
	for release, want := range map[string][2]int{
		"6.18.44-fc-v782": {6, 18}, "5.15.0-91-generic": {5, 15}, "6.1-rc": {6, 1}, "6.6": {6, 6},
	} {
		if got, ok := kernelVersion(release); !ok || got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
	if _, ok := kernelVersion("linux"); ok {
		t.Error("taken")
	}
	if !older([2]int{5, 15}, [2]int{6, 6}) || !older([2]int{6, 1}, [2]int{6, 6}) || older([2]int{6, 6}, [2]int{6, 6}) || older([2]int{7, 0}, [2]int{6, 6}) {
		t.Error("order of releases")
	}
}

func TestFeature(t *testing.T) {
	none := fmt.Errorf("probe: %w", ebpf.ErrNotSupported)
	for _, test := range []struct {
		need          loader.Need
		state, advice string
	}{
		{loader.Need{Name: "XDP", Advice: "update"}, OK, ""},
		{loader.Need{Name: "XDP", Missing: none, Advice: "update"}, Fail, "update"},
		{loader.Need{Name: "tcx", Missing: none, Instead: "filters do", Advice: "update"}, Warn, "update; without it filters do"},
		{loader.Need{Name: "XDP", Missing: errors.New("odd"), Advice: "update"}, Warn, "try dpclass attach: it fails with a reason if it needs this"},
	} {
		if got := feature(test.need); got.Check != test.need.Name || got.State != test.state || got.Advice != test.advice {
			t.Errorf("%+v: %+v", test.need, got)
		}
	}
}

// TestBPFFS: it fails only where attach does.
func TestBPFFS(t *testing.T) {
	for _, test := range []struct {
		state    bpffs.State
		mayMount bool
		want     string
	}{
		{bpffs.Mounted, false, OK}, {bpffs.Missing, true, OK}, {bpffs.Missing, false, Fail}, {bpffs.Hidden, true, Fail},
	} {
		if got := bpffsFinding(test.state, test.mayMount); got.State != test.want || (got.Advice == "") != (test.want == OK) {
			t.Errorf("%+v: %+v", test, got)
		}
	}
}

func TestSandbox(t *testing.T) {
	for landlock, want := range map[int]Finding{
		0: {"sandbox", Warn, "capabilities and no new privileges, no Landlock", ""},
		3: {"sandbox", Warn, "capabilities, no new privileges, Landlock 3, for files alone", ""},
		7: {"sandbox", OK, "capabilities, no new privileges, Landlock 7", ""},
	} {
		got := sandboxFinding(landlock)
		if (got.Advice == "") != (want.State == OK) {
			t.Errorf("%d: advice %q", landlock, got.Advice)
		}
		if got.Advice = ""; got != want {
			t.Errorf("%d: %+v", landlock, got)
		}
	}
}

func TestFailure(t *testing.T) {
	got := failure("models", fmt.Errorf("load: %w", fault.New("no such file", "copy it")), "choose others")
	if want := (Finding{"models", Fail, "load: no such file", "copy it; choose others"}); got != want {
		t.Errorf("%+v", got)
	}
}

func TestMemoryFinding(t *testing.T) {
	const meminfo = "MemTotal:       16000000 kB\nMemFree:         9000000 kB\nMemAvailable:     200000 kB\n"
	for need, want := range map[uint64]string{100 << 20: OK, 300 << 20: Warn} {
		f := memoryFinding(meminfo, need)
		if f.State != want || (f.Advice == "") != (want == OK) {
			t.Errorf("%d bytes needed: %+v, want %s", need, f, want)
		}
	}
}
