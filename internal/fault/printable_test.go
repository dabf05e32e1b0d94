// SPDX-License-Identifier: Apache-2.0

package fault

import "testing"

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"plain text, 100 %":      "plain text, 100 %",
		"Grüße, 世界 → ok":         "Grüße, 世界 → ok",
		"\x1b[31mred\x1b]0;t\a":  `\x1b[31mred\x1b]0;t\a`,
		"two\nlines\tand\r":      `two\nlines\tand\r`,
		"del\x7f":                `del\x7f`,
		"c1 \u009b31m":           `c1 \u009b31m`,
		"bytes \x9b\xff":         `bytes \x9b\xff`,
		"reversed \u202egpj.exe": `reversed \u202egpj.exe`,
		"hidden \u200b\ufeff":    `hidden \u200b\ufeff`,
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
