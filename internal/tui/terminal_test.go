// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"os"
	"testing"
)

func TestNoColorOutsideATerminal(t *testing.T) {
	if WantColor(&bytes.Buffer{}) {
		t.Error("colours into a buffer")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if WantColor(file) {
		t.Error("colours into the null device")
	}
}
