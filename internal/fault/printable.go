// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns a text as a terminal may show it. Names of files, labels, models and
// servers come from strangers: what could control the terminal, hide text or reverse it is
// written as Go writes it in a string, such as \x1b. A printable text stays as it is.
func Printable(text string) string {
	clean := true
	for i := 0; i < len(text); i++ {
		if b := text[i]; b < ' ' || b >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			quoted := strconv.Quote(text[:size])
			out.WriteString(quoted[1 : len(quoted)-1])
		} else {
			out.WriteString(text[:size])
		}
		text = text[size:]
	}
	return out.String()
}
