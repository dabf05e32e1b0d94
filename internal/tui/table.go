// SPDX-License-Identifier: Apache-2.0

package tui

import (
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
	columns = slices.DeleteFunc(slices.Clone(columns), func(c Column[T]) bool {
		return c.Wanted != nil && !slices.ContainsFunc(rows, c.Wanted)
	})
	columns = fitting(columns, rows, width)
	titles, right := make([]Cell, len(columns)), make([]bool, len(columns))
	for i, c := range columns {
		titles[i], right[i] = Cell{c.Title, Bold}, c.Right
	}
	cells := make([][]Cell, 0, len(rows)+1)
	cells = append(cells, titles)
	for _, row := range rows {
		line := make([]Cell, len(columns))
		for i, c := range columns {
			line[i] = c.Cell(row)
		}
		cells = append(cells, line)
	}
	return align(cells, right, color, width)
}

// fitting leaves out columns until the table fits the width, or none can be spared.
func fitting[T any](columns []Column[T], rows []T, width int) []Column[T] {
	if width == 0 {
		return columns
	}
	widths, all := make([]int, len(columns)), -2 // two spaces between columns
	for i, c := range columns {
		widths[i] = utf8.RuneCountInString(c.Title)
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Cell(row).Text))
		}
		all += widths[i] + 2
	}
	for all > width {
		first := -1
		for i, c := range columns {
			if c.Leaves > 0 && (first < 0 || c.Leaves < columns[first].Leaves) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		all -= widths[first] + 2
		columns, widths = slices.Delete(columns, first, first+1), slices.Delete(widths, first, first+1)
	}
	return columns
}

// align pads cells to columns.
func align(cells [][]Cell, right []bool, color bool, width int) []string {
	widths := make([]int, len(right))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	lines := make([]string, 0, len(cells))
	for _, line := range cells {
		var out strings.Builder
		used := 0
		for i, c := range line {
			if i > 0 {
				c.Text, used = "  "+padded(c.Text, widths[i], right[i]), used+2
			} else {
				c.Text = padded(c.Text, widths[i], right[i])
			}
			if i == len(line)-1 && !right[i] {
				c.Text = strings.TrimRight(c.Text, " ")
			}
			used += widths[i]
			if width > 0 && used > width {
				break
			}
			out.WriteString(Paint(c.Text, c.Style, color))
		}
		lines = append(lines, strings.TrimRight(out.String(), " "))
	}
	return lines
}

func padded(text string, width int, right bool) string {
	space := strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
	if right {
		return space + text
	}
	return text + space
}
