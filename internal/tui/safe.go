// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"io"
	"strings"

	"github.com/dpclass/dpclass/internal/fault"
)

// Printable returns a text as a terminal may show it: see [fault.Printable].
func Printable(text string) string { return fault.Printable(text) }

// PrintableLines does the same to a text of several lines, which may have tabs.
func PrintableLines(text string) string {
	var out strings.Builder
	for len(text) > 0 {
		end := strings.IndexAny(text, "\n\t")
		if end < 0 {
			out.WriteString(Printable(text))
			break
		}
		out.WriteString(Printable(text[:end]))
		out.WriteByte(text[end])
		text = text[end+1:]
	}
	return out.String()
}

// Safe returns a writer that makes everything printable that is written to it, line by line.
// It is for texts without styles. A character must not be split between two writes.
func Safe(w io.Writer) io.Writer { return safeWriter{w} }

type safeWriter struct{ w io.Writer }

func (s safeWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, PrintableLines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
