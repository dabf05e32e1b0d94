// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
)

// View is a list of flows that is read from somewhere.
type View struct {
	Source   func() ([]flow.Record, error)
	Keep     Filter
	Sort     string        // one of SortKeys
	Limit    int           // rows shown; 0: all
	Interval time.Duration // between two reads; 0: the default
	What     string        // what the flows are called in the summary: "flows"

	rates Rates
	rows  []Row // the rows that Keep accepts, in order
	total int   // before Keep
}

// The default of View.Interval.
const (
	onceInterval  = 500 * time.Millisecond
	watchInterval = time.Second
)

// read reads the flows to show.
func (v *View) read() error {
	records, err := v.Source()
	if err != nil {
		return err
	}
	rows := v.rates.Rows(records, time.Now())
	v.total = len(rows)
	v.rows = slices.DeleteFunc(rows, func(r Row) bool { return !v.Keep(r.Record) })
	Sort(v.rows, v.Sort)
	return nil
}

// shown returns the rows within the limit.
func (v *View) shown() []Row {
	if v.Limit > 0 && len(v.rows) > v.Limit {
		return v.rows[:v.Limit]
	}
	return v.rows
}

func (v *View) interval(fallback time.Duration) time.Duration {
	if v.Interval > 0 {
		return v.Interval
	}
	return fallback
}

// Records reads the flows to show: twice with rates, which sorting by rate needs.
func (v *View) Records(ctx context.Context, rates bool) ([]*flow.Record, error) {
	if err := v.readOnce(ctx, rates); err != nil {
		return nil, err
	}
	records := make([]*flow.Record, 0, len(v.shown()))
	for _, r := range v.shown() {
		records = append(records, r.Record)
	}
	return records, nil
}

// Print reads the flows, twice with rates, and prints them as a table.
func (v *View) Print(ctx context.Context, out io.Writer, rates bool) error {
	if err := v.readOnce(ctx, rates); err != nil {
		return err
	}
	lines := Table(v.shown(), time.Now(), tui.WantColor(out), tui.Width(out))
	lines = append(lines, v.summary(len(v.shown())))
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

func (v *View) readOnce(ctx context.Context, rates bool) error {
	err := v.read()
	if err != nil || !rates || v.total == 0 {
		return err
	}
	if !tui.Pause(ctx, v.interval(onceInterval)) {
		return ctx.Err()
	}
	return v.read()
}

// summary is the line below the table.
func (v *View) summary(shown int) string {
	text := fmt.Sprintf("%d %s", v.total, v.What)
	if len(v.rows) < v.total {
		text = fmt.Sprintf("%d of %s", len(v.rows), text)
	}
	if shown < len(v.rows) {
		text += fmt.Sprintf(", %d shown", shown)
	}
	var rate float64
	for _, r := range v.rows {
		rate += r.Rate
	}
	if rate >= 1 {
		text += ", " + tui.Rate(rate)
	}
	return text
}

// watchKeys are the keys of the live table, with the order that each sorts by.
var watchKeys = map[byte]string{
	'r': "rate", 'b': "bytes", 'p': "packets", 'd': "dropped", 'l': "last", 'f': "first", 'c': "category", 'a': "app",
}

const watchHelp = "q quit  space pause  sort: r rate  b bytes  p packets  d dropped  l last  f first  c category  a app"

// Watch shows the flows until the context ends: in place on a terminal, else as one
// table after another.
func (v *View) Watch(ctx context.Context, in io.Reader, out io.Writer) error {
	live := tui.Live{Interval: v.interval(watchInterval), Read: v.read, Draw: v.draw, Key: func(key byte) {
		if order, known := watchKeys[key]; known {
			v.Sort = order
			Sort(v.rows, order)
		}
	}}
	return live.Run(ctx, in, out)
}

// draw returns the lines of one screen.
func (v *View) draw(s tui.Screen) []string {
	shown := v.shown()
	if s.Rows == 0 {
		return append(Table(shown, time.Now(), false, s.Columns), v.summary(len(shown)))
	}
	if room := max(s.Rows-4, 1); len(shown) > room { // titles, a line between, summary, keys
		shown = shown[:room]
	}
	lines := Table(shown, time.Now(), s.Color, s.Columns)
	summary := v.summary(len(shown)) + ", sorted by " + v.Sort
	if s.Paused {
		summary += ", paused"
	}
	return append(lines, "", tui.Paint(tui.Cut(summary, s.Columns), tui.Bold, s.Color), tui.Paint(tui.Cut(watchHelp, s.Columns), tui.Dim, s.Color))
}
