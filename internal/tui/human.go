// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"strconv"
	"time"
)

// scaled writes a value with three digits and a prefix.
func scaled(value float64, units ...string) string {
	i := 0
	for ; value >= 1000 && i < len(units)-1; i++ {
		value /= 1000
	}
	if i == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, units[i])
	}
	return fmt.Sprintf("%.1f %s", value, units[i])
}

// Rate writes bits per second: "12.3 Mbit/s".
func Rate(bits float64) string {
	return scaled(bits, "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
}

// Bytes writes a size in powers of 1000: "9.9 MB".
func Bytes(n uint64) string { return scaled(float64(n), "B", "kB", "MB", "GB", "TB", "PB") }

// Count writes a number; from 10,000 on, three digits and a prefix: "12.3 k".
func Count(n uint64) string {
	if n < 10000 {
		return strconv.FormatUint(n, 10)
	}
	return scaled(float64(n), "", "k", "M", "G", "T")
}

// Age writes a duration with its two largest units: "1m30s".
func Age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Seconds writes a duration as Age does, but with one decimal below a minute.
func Seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return Age(d)
}

// Plural writes a number and a word, with an s if the number is not 1.
func Plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

// OrNone writes "none" for an empty text.
func OrNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
