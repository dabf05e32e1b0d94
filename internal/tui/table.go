// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// Style is an SGR sequence (ECMA-48) for a text.
type Style string

// The styles.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Blue   Style = "34"
	Purple Style = "35"
	Cyan   Style = "36"
)

// Paint returns the text in a style, or unchanged if color is false.
func Paint(text string, style Style, color bool) string {
	if !color || style == Plain {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

// Cell is a text in a table.
type Cell struct {
	Text  string
	Style Style
}

// CountCell shows a count, and 0 as a dash.
func CountCell(n uint64, style Style) Cell {
	if n == 0 {
		return Cell{"-", Dim}
	}
	return Cell{Count(n), style}
}

// Column is one column of a table of rows of type T.
type Column[T any] struct {
	Title string
	Right bool // aligned to the right
	// Wanted reports whether a row needs the column; nil: always.
	Wanted func(T) bool
	// Leaves is the order in which columns are left out of a table that is too wide,
	// from 1; 0: never.
	Leaves int
	Cell   func(T) Cell
}

// Table returns the lines of a table, the first of which has the titles. Columns that
// no row needs are left out. If the lines are longer than width, columns that can be
// spared are left out, and the rest is cut; 0 means no limit.
func Table[T any](columns []Column[T], rows []T, color bool, width int) []string {
	var lines []string
	// It has no error of its own.
	_ = Lines(columns, slices.Values(rows), color, width, func(line string) error {
		lines = append(lines, line)
		return nil
	})
	return lines
}

// Lines hands the lines of a table to each, as [Table] returns them, until it returns an
// error. It keeps none of them and asks twice for the rows, so that a table may have
// millions.
func Lines[T any](columns []Column[T], rows iter.Seq[T], color bool, width int, each func(line string) error) error {
	l := measure(columns, rows)
	l.fit(width)
	line := make([]Cell, len(l.columns))
	for i, c := range l.columns {
		line[i] = Cell{c.Title, Bold}
	}
	if err := each(l.line(line, color, width)); err != nil {
		return err
	}
	for row := range rows {
		for i, c := range l.columns {
			line[i] = c.Cell(row)
		}
		if err := each(l.line(line, color, width)); err != nil {
			return err
		}
	}
	return nil
}

// layout is the columns of a table, with their widths.
type layout[T any] struct {
	columns []Column[T]
	widths  []int
}

// measure returns the columns that a row needs.
func measure[T any](columns []Column[T], rows iter.Seq[T]) layout[T] {
	wanted, widths := make([]bool, len(columns)), make([]int, len(columns))
	for i, c := range columns {
		wanted[i], widths[i] = c.Wanted == nil, utf8.RuneCountInString(c.Title)
	}
	for row := range rows {
		for i, c := range columns {
			wanted[i] = wanted[i] || c.Wanted(row)
			widths[i] = max(widths[i], utf8.RuneCountInString(Printable(c.Cell(row).Text)))
		}
	}
	var l layout[T]
	for i, c := range columns {
		if wanted[i] {
			l.columns, l.widths = append(l.columns, c), append(l.widths, widths[i])
		}
	}
	return l
}

// fit leaves out columns until the table fits the width, or none can be spared.
func (l *layout[T]) fit(width int) {
	if width == 0 {
		return
	}
	all := -2 // two spaces between columns
	for _, w := range l.widths {
		all += w + 2
	}
	for all > width {
		first := -1
		for i, c := range l.columns {
			if c.Leaves > 0 && (first < 0 || c.Leaves < l.columns[first].Leaves) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		all -= l.widths[first] + 2
		l.columns, l.widths = slices.Delete(l.columns, first, first+1), slices.Delete(l.widths, first, first+1)
	}
}

// line pads the cells of a row to the columns.
func (l *layout[T]) line(cells []Cell, color bool, width int) string {
	var out strings.Builder
	used := 0
	for i, c := range cells {
		right := l.columns[i].Right
		text := padded(Printable(c.Text), l.widths[i], right)
		if i > 0 {
			text, used = "  "+text, used+2
		}
		if i == len(cells)-1 && !right {
			text = strings.TrimRight(text, " ")
		}
		used += l.widths[i]
		if width > 0 && used > width {
			break
		}
		out.WriteString(Paint(text, c.Style, color))
	}
	return strings.TrimRight(out.String(), " ")
}

func padded(text string, width int, right bool) string {
	space := strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
	if right {
		return space + text
	}
	return text + space
}
