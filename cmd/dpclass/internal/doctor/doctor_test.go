// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/internal/fault"
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

func TestMissingCapabilities(t *testing.T) {
	for status, want := range map[string][]string{
		"Name:\tx\nCapEff:\t000001fffeffffff\n": {},
		"CapEff:\t0000000000000000\n":           {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"},
		"CapEff:\t0000000000200000\n":           {"CAP_NET_ADMIN"}, // CAP_SYS_ADMIN alone
		"CapEff:\t000000c000001000\n":           {},
	} {
		if got := missingCapabilities(status); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}

func TestFeature(t *testing.T) {
	for want, err := range map[string]error{OK: nil, Fail: fmt.Errorf("probe: %w", ebpf.ErrNotSupported), Warn: errors.New("odd")} {
		if got := feature("XDP", Fail, "update", err); got.Check != "XDP" || got.State != want || (got.Advice == "") != (want == OK) {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

func TestFailure(t *testing.T) {
	got := failure("models", fmt.Errorf("load: %w", fault.New("no such file", "copy it")), "choose others")
	if want := (Finding{"models", Fail, "load: no such file", "copy it; choose others"}); got != want {
		t.Errorf("%+v", got)
	}
}
