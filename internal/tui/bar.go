// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"os"
	"strings"
)

// Bar draws a share, 0 to 1, as a bar of at most so many columns: with block
// characters, in eighths of a column, if the locale has them, else with "#". A share that is not
// 0 is never drawn as nothing.
func Bar(share float64, columns int) string { return bar(share, columns, blocks()) }

// blocks reports whether the program may print block characters: the locale's encoding
// (POSIX, XBD 8.2) is UTF-8, and NO_COLOR does not ask for plain text.
func blocks() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := os.Getenv(name); value != "" {
			value = strings.ReplaceAll(strings.ToLower(value), "-", "")
			return strings.Contains(value, "utf8") && os.Getenv("NO_COLOR") == ""
		}
	}
	return false
}

func bar(share float64, columns int, blocks bool) string {
	share = min(max(share, 0), 1)
	if !blocks {
		full := int(share*float64(columns) + .5)
		if share > 0 {
			full = max(full, 1)
		}
		return strings.Repeat("#", full)
	}
	eighths := int(share*float64(columns)*8 + .5)
	if share > 0 {
		eighths = max(eighths, 1)
	}
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return text
}
