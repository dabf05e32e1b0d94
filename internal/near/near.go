// SPDX-License-Identifier: Apache-2.0

// Package near finds the known word that somebody probably meant to type.
package near

import "strings"

// Word returns the known word nearest to the given one. It returns false if no known
// word is near enough to suggest it.
func Word(word string, known []string) (string, bool) {
	word = strings.ToLower(word)
	best, bestDistance := "", len(word)/3+2
	for _, candidate := range known {
		if d := distance(word, strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best, best != ""
}

// Hint returns `; did you mean "x"?`, or "" if no known word is near.
func Hint(word string, known []string) string {
	if best, ok := Word(word, known); ok {
		return `; did you mean "` + best + `"?`
	}
	return ""
}

// distance counts the edits from a to b: bytes to insert, delete, replace or swap with
// the next one.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
