// SPDX-License-Identifier: Apache-2.0

package offline

import "testing"

func TestLeftOut(t *testing.T) {
	many := map[string]int{}
	for _, label := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"} {
		many[label] = 1
	}
	for _, test := range []struct {
		out  LeftOut
		want string
	}{
		{LeftOut{}, "nothing is left out"},
		{LeftOut{Captures: 3, N: 1, Labels: map[string]int{"": 1, "web": 2}}, "left out: 1 flow of 3 captures (web 2, (no label) 1)"},
		{LeftOut{Captures: 9, N: 20, Labels: many}, "left out: 20 flows of 9 captures (a 1, b 1, c 1, d 1, e 1, f 1, g 1, h 1, 1 more)"},
	} {
		if got := test.out.Describe(ByFlow); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}
