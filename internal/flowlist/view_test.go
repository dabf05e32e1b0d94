// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
)

// growing returns a source of two flows, the first of which grows from read to read.
func growing() Source {
	bytes := uint64(1000)
	return func(each func(*flow.Record) bool) error {
		first, second := *call443(), *undecided6()
		first.Bytes, second.Bytes = bytes, 5e6
		bytes += 1000
		_ = each(&second) && each(&first)
		return nil
	}
}

func TestViewPrint(t *testing.T) {
	broken := errors.New("broken")
	failing := View{Source: func(func(*flow.Record) bool) error { return broken }}
	for _, rates := range []bool{false, true} {
		if err := failing.Print(context.Background(), &bytes.Buffer{}, rates); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	}
	for _, test := range []struct {
		filter  string
		limit   int
		rates   bool
		flows   int
		summary string
	}{
		{"", 0, false, 2, "2 flows\n"},
		{"", 1, false, 1, "2 flows, 1 shown\n"},
		{"proto:udp", 0, false, 1, "1 of 2 flows\n"},
		{"proto:tcp", 0, true, 1, "1 of 2 flows, "}, // and a rate
	} {
		keep, err := ParseFilter(test.filter, nil)
		if err != nil {
			t.Fatal(err)
		}
		view := View{Source: growing(), Keep: keep, Sort: "rate", Limit: test.limit, Interval: time.Millisecond, What: "flows"}
		var out bytes.Buffer
		if err := view.Print(context.Background(), &out, test.rates); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "\n") - 2; got != test.flows || !strings.Contains(out.String(), "\n"+test.summary) {
			t.Errorf("%+v:\n%s", test, out.String())
		}
		if test.rates && !strings.Contains(out.String(), "bit/s") {
			t.Errorf("no rate:\n%s", out.String())
		}
	}
}

func TestViewRecords(t *testing.T) {
	view := View{Source: growing(), Keep: func(*flow.Record) bool { return true }, Sort: "bytes", Limit: 1, What: "flows"}
	var records []flow.Record
	collect := func(r *flow.Record) error {
		records = append(records, *r)
		return nil
	}
	if err := view.Records(context.Background(), false, collect); err != nil || len(records) != 1 || records[0].Proto != "udp" {
		t.Errorf("%v, %v", records, err)
	}
	broken := errors.New("broken")
	if err := view.Records(context.Background(), false, func(*flow.Record) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := view.Records(ended, true, collect); err == nil {
		t.Error("the second read came after the end of the context")
	}
}

func TestViewDraw(t *testing.T) {
	view := View{Source: growing(), Keep: func(*flow.Record) bool { return true }, Sort: "src", What: "flows"}
	if err := view.read(); err != nil {
		t.Fatal(err)
	}
	lines := view.draw(tui.Screen{Columns: 60, Rows: 5, Paused: true}) // room for one flow
	if len(lines) != 5 || !strings.HasPrefix(lines[3], "2 flows, 1 shown, sorted by src, paused") || lines[4] != watchHelp[:60] {
		t.Errorf("%q", lines)
	}
	if lines := view.draw(tui.Screen{}); len(lines) != 4 || lines[3] != "2 flows" {
		t.Errorf("outside a terminal: %q", lines)
	}
}
