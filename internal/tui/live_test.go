// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestLivePlain(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	reads := 0
	live := Live{Interval: time.Millisecond, Read: func() error {
		if reads++; reads == 3 {
			cancel()
		}
		return nil
	}, Draw: func(s Screen) []string {
		if s != (Screen{}) {
			t.Errorf("drawn for %+v", s)
		}
		return []string{"a line"}
	}}
	var out bytes.Buffer
	if err := live.Run(ctx, nil, &out); err != nil {
		t.Fatal(err)
	}
	if reads != 3 || strings.Count(out.String(), "\na line\n\n") != 3 || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%d reads:\n%s", reads, out.String())
	}
	broken := errors.New("broken")
	live.Read = func() error { return broken }
	if err := live.Run(context.Background(), nil, &out); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestTable(t *testing.T) {
	columns := []Column[int]{
		{Title: "N", Right: true, Cell: func(n int) Cell { return CountCell(uint64(n), Plain) }},
		{Title: "NAME", Leaves: 2, Cell: func(n int) Cell { return Cell{Text: strings.Repeat("x", n), Style: Red} }},
		{Title: "BIG", Wanted: func(n int) bool { return n > 9 }, Cell: func(int) Cell { return Cell{Text: "yes"} }},
		{Title: "ODD", Leaves: 1, Wanted: func(n int) bool { return n == 11 }, Cell: func(int) Cell { return Cell{Text: "odd"} }},
	}
	for _, test := range []struct {
		rows  []int
		color bool
		width int
		want  string
	}{
		{[]int{0, 3}, false, 0, "N  NAME|-|3  xxx"},
		{[]int{0, 10}, false, 0, " N  NAME        BIG| -              yes|10  xxxxxxxxxx  yes"},
		{[]int{10}, false, 5, " N|10"},
		{[]int{11}, false, 25, " N  NAME         BIG  ODD|11  xxxxxxxxxxx  yes  odd"},
		{[]int{11}, false, 24, " N  NAME         BIG|11  xxxxxxxxxxx  yes"}, // columns leave in their order
		{[]int{11}, false, 19, " N  BIG|11  yes"},
		{[]int{3}, true, 0, "\x1b[1mN\x1b[0m\x1b[1m  NAME\x1b[0m|3\x1b[31m  xxx\x1b[0m"},
		{nil, false, 0, "N  NAME"},
	} {
		if got := strings.Join(Table(columns, test.rows, test.color, test.width), "|"); got != test.want {
			t.Errorf("%v: %q, want %q", test.rows, got, test.want)
		}
	}
}

func TestWidthElsewhere(t *testing.T) {
	for value, want := range map[string]int{"": 0, "100": 100, "x": 0, "-1": 0} {
		t.Setenv("COLUMNS", value)
		if got := Width(io.Discard); got != want {
			t.Errorf("COLUMNS=%q: width %d, want %d", value, got, want)
		}
	}
}
