// SPDX-License-Identifier: Apache-2.0

package capabilities

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
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

// TestKeep: a process keeps the three, or CAP_SYS_ADMIN in place of one that it lacks.
func TestKeep(t *testing.T) {
	three := []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	for set, want := range map[uint64][]int{
		0x1fffeffffff: three,
		0xc000001000:  three,
		0x201000:      {unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN},
		0x8000001000:  {unix.CAP_BPF, unix.CAP_NET_ADMIN},
		0:             nil,
	} {
		if got := keep(set); !slices.Equal(got, want) {
			t.Errorf("%x: %v, want %v", set, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	got := Names([]int{unix.CAP_CHOWN, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_PERFMON, unix.CAP_BPF, unix.CAP_LAST_CAP, 63})
	want := []string{"CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", "capability 63"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if len(byNumber) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names", len(byNumber))
	}
}

// TestRights: one thread with more rights than the others counts.
func TestRights(t *testing.T) {
	const confined = "CapPrm:\t000000c000001000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
	for _, other := range []string{confined, "CapPrm:\t000000c000201000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		"CapPrm:\t000000c000001000\nNoNewPrivs:\t0\nSeccomp:\t2\n", "CapPrm:\t000000c000001000\nNoNewPrivs:\t1\nSeccomp:\t0\n"} {
		got := rights([]string{confined, other})
		same := slices.Equal(got.Capabilities, []string{"CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"}) && got.NoNewPrivs && got.Seccomp
		if same != (other == confined) {
			t.Errorf("%q: %+v", other, got)
		}
	}
	if got, err := Of(os.Getpid()); err != nil || got.Capabilities == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Of(1 << 30); err == nil {
		t.Error("a process that is not there has rights")
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
