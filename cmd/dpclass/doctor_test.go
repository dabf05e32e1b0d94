// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
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

func TestFindings(t *testing.T) {
	var out bytes.Buffer
	err := printFindings(&out, false, []finding{
		{"kernel", stateOK, "6.18", ""}, feature("tcx", stateWarn, "update", ebpf.ErrNotSupported),
		feature("XDP", stateFail, "update", ebpf.ErrNotSupported), feature("tc", stateFail, "update", errors.New("odd\nmore")),
	})
	var quiet quietError
	if !errors.As(err, &quiet) {
		t.Errorf("error %v", err)
	}
	const want = "ok   kernel         6.18\nwarn tcx            missing\n                    -> update\nfail XDP            missing\n                    -> update\nwarn tc             cannot be told: "
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("got\n%s", out.String())
	}
}
