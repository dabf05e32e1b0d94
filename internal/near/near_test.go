// SPDX-License-Identifier: Apache-2.0

package near

import "testing"

func TestWord(t *testing.T) {
	known := []string{"category", "app", "vpn", "streaming", "min_confidence"}
	for word, want := range map[string]string{
		"categry": "category", "Category": "category", "catgeory": "category", "ap": "app", "pvn": "vpn",
		"steaming": "streaming", "min-confidence": "min_confidence", "zebra": "", "": "",
	} {
		if got, _ := Word(word, known); got != want {
			t.Errorf("Word(%q) = %q, want %q", word, got, want)
		}
	}
}
