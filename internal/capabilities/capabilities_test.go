// SPDX-License-Identifier: Apache-2.0

package capabilities

import (
	"slices"
	"testing"
)

func TestMissing(t *testing.T) {
	for status, want := range map[string][]string{
		"Name:\tx\nCapEff:\t000001fffeffffff\n": {},
		"CapEff:\t0000000000000000\n":           {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"},
		"CapEff:\t0000000000200000\n":           {"CAP_NET_ADMIN"}, // CAP_SYS_ADMIN alone
		"CapEff:\t000000c000001000\n":           {},
		"CapEff:\t0000008000001000\n":           {"CAP_PERFMON"},
	} {
		if got := missing(status); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}

func TestMissingFor(t *testing.T) {
	for status, want := range map[string][]string{
		"CapEff:\t000001fffeffffff\n": {},
		"CapEff:\t0000000000000000\n": {"CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"},
		"CapEff:\t0000000000002004\n": {"CAP_SYS_PTRACE"},
	} {
		if got := missingFor(status, Record); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}
