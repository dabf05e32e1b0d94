// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dpclass/dpclass/internal/fault"
)

// TestRightsAdvice: an error about rights says what gives them, unless it has advice of its own or root gets it.
func TestRightsAdvice(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES} {
		err := fmt.Errorf("list pins: %w", errno)
		if got := adviceOn(err, 1000); len(got) != 1 || !strings.Contains(got[0], "sudo") {
			t.Errorf("%v: %q", err, got)
		}
		if got := adviceOn(err, 0); len(got) != 0 {
			t.Errorf("%v for root: %q", err, got)
		}
		if got := adviceOn(fault.Advise(err, "chmod it"), 1000); !slices.Equal(got, []string{"chmod it"}) {
			t.Errorf("%v with advice: %q", err, got)
		}
	}
	if got := adviceOn(syscall.ENOENT, 1000); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestChoiceScope(t *testing.T) {
	if got := ChoiceScope("/home/x/.config/dpclass/model"); !strings.Contains(got, "your own choice") || !strings.Contains(got, "sudo") {
		t.Error(got)
	}
	if got := ChoiceScope(systemChoice); !strings.Contains(got, "every user") {
		t.Error(got)
	}
}
