// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// PrintJSON prints each value as one JSON object on a line of its own.
func PrintJSON[T any](w io.Writer, values ...T) error {
	encoder := NewEncoder(w)
	for i := range values {
		if err := encoder.Encode(values[i]); err != nil {
			return err
		}
	}
	return nil
}

// NewEncoder returns an encoder that writes a JSON object a line. Characters that could
// control a terminal are escaped, also those that JSON allows: DEL, the C1 controls and
// marks that reverse text.
func NewEncoder(w io.Writer) *json.Encoder { return json.NewEncoder(asciiControls{w}) }

// asciiControls escapes in a JSON text what [fault.Printable] escapes. Such characters can
// only be in a string. The encoder hands it whole lines.
type asciiControls struct{ w io.Writer }

func (a asciiControls) Write(line []byte) (int, error) {
	text := line
	if !printable(line) {
		text = nil
		for _, r := range string(line) {
			switch {
			case r == '\n' || unicode.IsPrint(r):
				text = utf8.AppendRune(text, r)
			case r > 0xffff:
				high, low := utf16.EncodeRune(r)
				text = fmt.Appendf(text, "\\u%04x\\u%04x", high, low)
			default:
				text = fmt.Appendf(text, "\\u%04x", r)
			}
		}
	}
	if _, err := a.w.Write(text); err != nil {
		return 0, err
	}
	return len(line), nil
}

// printable reports whether a line has only printable ASCII characters.
func printable(line []byte) bool {
	for _, b := range bytes.TrimSuffix(line, []byte("\n")) {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// RowPrinter returns a function that prints results as they come: JSON objects with
// -o json, else rows below a line of titles.
func RowPrinter[T any](g *Globals, w io.Writer, titles string, row func(T) string) func(T) error {
	if g.JSON() {
		return func(result T) error { return PrintJSON(w, result) }
	}
	first := true
	return func(result T) error {
		if first {
			first = false
			if _, err := fmt.Fprintln(w, titles); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(w, row(result))
		return err
	}
}
