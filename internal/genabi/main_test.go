// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestNext(t *testing.T) {
	first, err := next(nil, "00aa")
	if err != nil || !strings.Contains(string(first), "const ABI = 1\n") {
		t.Fatalf("the first file: %v\n%s", err, first)
	}
	if same, err := next(first, "00aa"); err != nil || !bytes.Equal(same, first) {
		t.Errorf("the same maps give another file: %v\n%s", err, same)
	}
	second, err := next(first, "00bb")
	if err != nil || !strings.Contains(string(second), "const ABI = 2\n") || !strings.Contains(string(second), `"00bb"`) {
		t.Errorf("other maps: %v\n%s", err, second)
	}
	if _, err := next([]byte("package loader\n"), "00aa"); err == nil {
		t.Error("a file without a number was taken")
	}
}
