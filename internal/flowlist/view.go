// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
)

// Source hands the flows of one read to each, until it returns false. A record is valid
// until the next one. A flow may come twice, with parts of its counts.
type Source func(each func(*flow.Record) bool) error

// View is a list of flows that is read from somewhere.
type View struct {
	Source   Source
	Keep     Filter
	Sort     string        // one of SortKeys
	Limit    int           // rows shown; 0: all
	Interval time.Duration // between two reads; 0: the default
	What     string        // what the flows are called in the summary: "flows"

	rates rates
	list  *list // the rows that Keep accepts are in order
}

// The default of View.Interval.
const (
	onceInterval  = 500 * time.Millisecond
	watchInterval = time.Second
)

// flows returns the flows of one read. The error is known after the last one.
func (v *View) flows() (iter.Seq[*flow.Record], *error) {
	if v.rates.bytes == nil {
		v.rates = newRates()
	}
	failed := new(error)
	return func(yield func(*flow.Record) bool) { *failed = v.Source(yield) }, failed
}

// read reads the flows to show.
func (v *View) read() error {
	v.list = nil // free its memory first
	flows, err := v.flows()
	list := v.rates.list(flows, time.Now())
	if *err != nil {
		return *err
	}
	list.keep(v.Keep)
	list.sort(v.Sort)
	v.list = list
	return nil
}

// shown returns the number of rows within the limit.
func (v *View) shown() int {
	if v.Limit > 0 {
		return min(v.Limit, len(v.list.ordered))
	}
	return len(v.list.ordered)
}

func (v *View) interval(fallback time.Duration) time.Duration {
	if v.Interval > 0 {
		return v.Interval
	}
	return fallback
}

// Records reads the flows to show and hands them to each: it reads twice with rates, which
// sorting by rate needs. A record is valid until the next one.
func (v *View) Records(ctx context.Context, rates bool, each func(*flow.Record) error) error {
	if err := v.readOnce(ctx, rates); err != nil {
		return err
	}
	for row := range v.list.rows(v.shown()) {
		if err := each(row.Record); err != nil {
			return err
		}
	}
	return nil
}

// Print reads the flows, twice with rates, and prints them as a table.
func (v *View) Print(ctx context.Context, screen io.Writer, rates bool) error {
	if err := v.readOnce(ctx, rates); err != nil {
		return err
	}
	out := bufio.NewWriterSize(screen, 1<<16)
	err := writeTable(v.list.rows(v.shown()), time.Now(), tui.WantColor(screen), tui.Width(screen), func(line string) error {
		_, err := fmt.Fprintln(out, line)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, v.summary(v.shown()))
	return out.Flush()
}

func (v *View) readOnce(ctx context.Context, rates bool) error {
	if !rates {
		return v.read()
	}
	flows, err := v.flows()
	n := v.rates.note(flows, time.Now())
	if *err != nil {
		return *err
	}
	if n > 0 && !tui.Pause(ctx, v.interval(onceInterval)) {
		return ctx.Err()
	}
	return v.read()
}

// summary is the line below the table.
func (v *View) summary(shown int) string {
	kept := len(v.list.ordered)
	text := fmt.Sprintf("%d %s", v.list.n, v.What)
	if kept < v.list.n {
		text = fmt.Sprintf("%d of %s", kept, text)
	}
	if shown < kept {
		text += fmt.Sprintf(", %d shown", shown)
	}
	if v.list.totalRate >= 1 {
		text += ", " + tui.Rate(v.list.totalRate)
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
			v.list.sort(order)
		}
	}}
	return live.Run(ctx, in, out)
}

// draw returns the lines of one screen.
func (v *View) draw(s tui.Screen) []string {
	shown := v.shown()
	var lines []string
	table := func(rows int, color bool) {
		// It has no error of its own.
		_ = writeTable(v.list.rows(rows), time.Now(), color, s.Columns, func(line string) error {
			lines = append(lines, line)
			return nil
		})
	}
	if s.Rows == 0 {
		table(shown, false)
		return append(lines, v.summary(shown))
	}
	shown = min(shown, max(s.Rows-4, 1)) // titles, a line between, summary, keys
	table(shown, s.Color)
	summary := v.summary(shown) + ", sorted by " + v.Sort
	if s.Paused {
		summary += ", paused"
	}
	return append(lines, "", tui.Paint(tui.Cut(summary, s.Columns), tui.Bold, s.Color), tui.Paint(tui.Cut(watchHelp, s.Columns), tui.Dim, s.Color))
}
