// SPDX-License-Identifier: Apache-2.0

// Package faulttest checks error messages in tests.
package faulttest

import (
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/fault"
)

// Want checks an error that a user will read: one line that says what is wrong, and
// advice. Each of the words must be in one of the two.
func Want(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	advice := strings.Join(fault.Advice(err), "; ")
	t.Logf("%v (%s)", err, advice)
	if strings.Contains(err.Error()+advice, "\n") {
		t.Errorf("more than one line:\n%v\n%s", err, advice)
	}
	if advice == "" {
		t.Errorf("no advice: %v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error()+" "+advice, word) {
			t.Errorf("%q is missing in: %v (%s)", word, err, advice)
		}
	}
}
