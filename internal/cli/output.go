// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
)

// PrintJSON prints each value as one JSON object on a line of its own.
func PrintJSON[T any](w io.Writer, values ...T) error {
	encoder := json.NewEncoder(w)
	for i := range values {
		if err := encoder.Encode(values[i]); err != nil {
			return err
		}
	}
	return nil
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
