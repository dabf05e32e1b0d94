// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestSafe(t *testing.T) {
	var out bytes.Buffer
	if n, err := fmt.Fprintf(Safe(&out), "a\tb\n%s\n", "\x1b[2J"); err != nil || n != 9 {
		t.Errorf("%d, %v", n, err)
	}
	if want := "a\tb\n\\x1b[2J\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// A cell cannot control the terminal, and is as wide as what is shown of it.
func TestTableIsPrintable(t *testing.T) {
	columns := []Column[string]{
		{Title: "A", Cell: func(s string) Cell { return Cell{Text: s} }},
		{Title: "B", Cell: func(string) Cell { return Cell{Text: "b"} }},
	}
	got := strings.Join(Table(columns, []string{"\x1b[2J", "longer than that"}, false, 0), "|")
	if want := `A                 B|\x1b[2J           b|longer than that  b`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
