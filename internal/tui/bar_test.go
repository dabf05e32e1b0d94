// SPDX-License-Identifier: Apache-2.0

package tui

import "testing"

func TestBar(t *testing.T) {
	for _, test := range []struct {
		share  float64
		blocks bool
		want   string
	}{
		{0, true, ""}, {1, true, "████"}, {0.5, true, "██"}, {0.28125, true, "█▏"}, {0.0001, true, "▏"}, {7, true, "████"}, {-1, true, ""},
		{0, false, ""}, {1, false, "####"}, {0.5, false, "##"}, {0.0001, false, "#"},
	} {
		if got := bar(test.share, 4, test.blocks); got != test.want {
			t.Errorf("bar(%v, 4, %v) is %q, want %q", test.share, test.blocks, got, test.want)
		}
	}
}

func TestBarFollowsTheLocale(t *testing.T) {
	for _, test := range []struct{ all, ctype, lang, noColor, want string }{
		{"", "", "C.UTF-8", "", "█"}, {"", "", "de_DE.utf8", "", "█"}, {"C", "", "C.UTF-8", "", "#"}, {"", "POSIX", "C.UTF-8", "", "#"},
		{"", "", "", "", "#"}, {"", "", "C.UTF-8", "1", "#"},
	} {
		t.Setenv("LC_ALL", test.all)
		t.Setenv("LC_CTYPE", test.ctype)
		t.Setenv("LANG", test.lang)
		t.Setenv("NO_COLOR", test.noColor)
		if got := Bar(1, 1); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}
