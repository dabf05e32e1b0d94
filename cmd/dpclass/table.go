// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dpclass/dpclass/flow"
)

// row is a flow with its rate in bits per second.
type row struct {
	*flow.Record
	rate float64
}

// style is an SGR sequence (ECMA-48) for a cell.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	blue   style = "34"
	purple style = "35"
	cyan   style = "36"
)

// cell is a text in a table.
type cell struct {
	text  string
	style style
}

// column is one column of the flow table.
type column struct {
	title string
	right bool // aligned to the right
	// wanted tells whether any flow makes the column worth its place; nil: always.
	wanted func(r row) bool
	cell   func(r row, now time.Time) cell
}

// verdictColumns are the columns that every table of flows begins with: which flow, and what it is.
func verdictColumns() []column {
	return []column{
		{title: "PROTO", cell: func(r row, _ time.Time) cell { return cell{text: r.Proto} }},
		{title: "SOURCE", cell: func(r row, _ time.Time) cell { return cell{text: endpoint(r.Src, r.SrcPort)} }},
		{title: "DESTINATION", cell: func(r row, _ time.Time) cell { return cell{text: endpoint(r.Dst, r.DstPort)} }},
		{title: "CATEGORY", cell: func(r row, _ time.Time) cell { return labelCell(r.Category, r.Final) }},
		{title: "%", right: true, cell: func(r row, _ time.Time) cell { return confidenceCell(r.Category, r.CategoryConfidence) }},
		{title: "APP", cell: func(r row, _ time.Time) cell { return labelCell(r.App, r.Final) }},
		{title: "%", right: true, cell: func(r row, _ time.Time) cell { return confidenceCell(r.App, r.AppConfidence) }},
	}
}

// flowColumns are the columns of the flow table, from left to right.
func flowColumns() []column {
	return append(verdictColumns(),
		column{title: "STATE", cell: stateCell},
		column{title: "RATE", right: true, cell: rateCell},
		column{title: "BYTES", right: true, cell: func(r row, _ time.Time) cell { return cell{text: humanBytes(r.Bytes)} }},
		column{title: "PACKETS", right: true, cell: func(r row, _ time.Time) cell { return cell{text: humanCount(r.Packets)} }},
		column{title: "DROPPED", right: true, wanted: func(r row) bool { return live(r.Record).Dropped > 0 },
			cell: func(r row, _ time.Time) cell { return countCell(live(r.Record).Dropped, red) }},
		column{title: "RULE", right: true, wanted: func(r row) bool { return live(r.Record).Rule > 0 },
			cell: func(r row, _ time.Time) cell { return countCell(uint64(live(r.Record).Rule), plain) }},
		column{title: "AGE", right: true, cell: func(r row, now time.Time) cell { return cell{text: humanAge(now.Sub(r.FirstSeen))} }},
		column{title: "IDLE", right: true, cell: func(r row, now time.Time) cell { return cell{text: humanAge(now.Sub(r.LastSeen))} }},
	)
}

// flowTable renders flows as an aligned table with a line of titles. width cuts
// the lines (0: do not). Columns that say nothing about these flows are left out.
func flowTable(rows []row, now time.Time, color bool, width int) []string {
	columns := slices.DeleteFunc(flowColumns(), func(c column) bool {
		return c.wanted != nil && !slices.ContainsFunc(rows, c.wanted)
	})
	if manyInterfaces(rows) {
		columns = slices.Insert(columns, 0, column{title: "IFACE", cell: func(r row, _ time.Time) cell { return cell{text: r.Iface} }})
	}
	cells := make([][]cell, 0, len(rows)+1)
	var titles []cell
	for _, c := range columns {
		titles = append(titles, cell{c.title, bold})
	}
	cells = append(cells, titles)
	for _, r := range rows {
		var line []cell
		for _, c := range columns {
			line = append(line, c.cell(r, now))
		}
		cells = append(cells, line)
	}
	rights := make([]bool, len(columns))
	for i, c := range columns {
		rights[i] = c.right
	}
	return align(cells, rights, color, width)
}

// align pads the cells of a table to columns.
func align(cells [][]cell, right []bool, color bool, width int) []string {
	widths := make([]int, len(right))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	lines := make([]string, 0, len(cells))
	for _, line := range cells {
		var out strings.Builder
		used := 0
		for i, c := range line {
			if i > 0 {
				c.text, used = "  "+padded(c.text, widths[i], right[i]), used+2
			} else {
				c.text = padded(c.text, widths[i], right[i])
			}
			if i == len(line)-1 && !right[i] {
				c.text = strings.TrimRight(c.text, " ")
			}
			used += widths[i]
			if width > 0 && used > width {
				break
			}
			out.WriteString(paint(c.text, c.style, color))
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

func paint(text string, s style, color bool) string {
	if !color || s == plain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

func manyInterfaces(rows []row) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return r.Iface != rows[0].Iface })
}

func endpoint(addr netip.Addr, port uint16) string {
	return netip.AddrPortFrom(addr, port).String()
}

// labelCell shows a label; a provisional one has a question mark.
func labelCell(label string, final bool) cell {
	switch label {
	case "":
		return cell{"-", dim}
	case flow.Unknown:
		return cell{provisional(label, final), dim}
	}
	return cell{provisional(label, final), labelStyle(label)}
}

func provisional(label string, final bool) string {
	if final {
		return label
	}
	return label + "?"
}

// labelStyle gives a label a colour of its own, as far as there are colours.
func labelStyle(label string) style {
	switch strings.TrimPrefix(label, "vpn-") {
	case "voip", "skype", "hangouts", "voipbuster":
		return green
	case "streaming", "netflix", "youtube", "vimeo", "spotify":
		return purple
	case "torrent", "tor":
		return red
	case "file-transfer", "ftps", "scp", "sftp":
		return yellow
	case "chat", "facebook", "aim", "icq":
		return cyan
	}
	return blue
}

func confidenceCell(label string, confidence float64) cell {
	if label == "" {
		return cell{"", dim}
	}
	return cell{strconv.Itoa(int(confidence*100 + .5)), dim}
}

// stateCell says what becomes of a flow: how it ended, who decided it.
func stateCell(r row, _ time.Time) cell {
	state := "undecided"
	look := dim
	switch {
	case r.Source == flow.SourceOperator.String():
		state, look = "operator", bold
	case r.Final:
		state, look = "final", plain
	case r.Category != "" || r.App != "":
		state = "guess"
	}
	if ended := live(r.Record).Ended; ended != "" {
		return cell{state + ", " + ended, dim}
	}
	return cell{state, look}
}

func rateCell(r row, _ time.Time) cell {
	if r.rate < 1 {
		return cell{"-", dim}
	}
	return cell{humanRate(r.rate), plain}
}

func countCell(n uint64, s style) cell {
	if n == 0 {
		return cell{"-", dim}
	}
	return cell{humanCount(n), s}
}

// human scales a value to three digits and a prefix.
func human(value, base float64, prefixes ...string) string {
	i := 0
	for ; value >= base && i < len(prefixes)-1; i++ {
		value /= base
	}
	if i == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, prefixes[i])
	}
	return fmt.Sprintf("%.1f %s", value, prefixes[i])
}

func humanRate(bits float64) string {
	return human(bits, 1000, "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
}

func humanBytes(n uint64) string {
	return human(float64(n), 1000, "B", "kB", "MB", "GB", "TB", "PB")
}

func humanCount(n uint64) string {
	if n < 10000 {
		return strconv.FormatUint(n, 10)
	}
	return human(float64(n), 1000, "", "k", "M", "G", "T")
}

// humanAge is a duration with its two largest units.
func humanAge(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
