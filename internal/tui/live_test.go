// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"context"
	"errors"
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
		{Title: "NAME", Cell: func(n int) Cell { return Cell{Text: strings.Repeat("x", n), Style: Red} }},
		{Title: "BIG", Wanted: func(n int) bool { return n > 9 }, Cell: func(int) Cell { return Cell{Text: "yes"} }},
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
		{[]int{3}, true, 0, "\x1b[1mN\x1b[0m\x1b[1m  NAME\x1b[0m|3\x1b[31m  xxx\x1b[0m"},
		{nil, false, 0, "N  NAME"},
	} {
		if got := strings.Join(Table(columns, test.rows, test.color, test.width), "|"); got != test.want {
			t.Errorf("%v: %q, want %q", test.rows, got, test.want)
		}
	}
}
