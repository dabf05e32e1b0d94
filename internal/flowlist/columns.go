// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
)

// Column is a column of a table of flows.
type Column = tui.Column[Row]

// VerdictColumns returns the columns that every table of flows begins with: which
// flow it is, and its verdicts.
func VerdictColumns() []Column {
	return []Column{
		{Title: "PROTO", Cell: func(r Row) tui.Cell { return tui.Cell{Text: r.Proto} }},
		{Title: "SOURCE", Cell: func(r Row) tui.Cell { return tui.Cell{Text: endpoint(r.Src, r.SrcPort)} }},
		{Title: "DESTINATION", Cell: func(r Row) tui.Cell { return tui.Cell{Text: endpoint(r.Dst, r.DstPort)} }},
		{Title: "CATEGORY", Cell: func(r Row) tui.Cell { return labelCell(r.Category, r.CategoryFinal) }},
		{Title: "%", Right: true, Cell: func(r Row) tui.Cell { return confidenceCell(r.Category, r.CategoryConfidence) }},
		{Title: "APP", Cell: func(r Row) tui.Cell { return labelCell(r.App, r.AppFinal) }},
		{Title: "%", Right: true, Cell: func(r Row) tui.Cell { return confidenceCell(r.App, r.AppConfidence) }},
	}
}

// PacketsColumn and BytesColumn show what a flow has carried.
var (
	PacketsColumn = Column{Title: "PACKETS", Right: true, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Count(r.Packets)} }}
	BytesColumn   = Column{Title: "BYTES", Right: true, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Bytes(r.Bytes)} }}
)

// liveColumns returns the columns of flows on an interface, from left to right.
func liveColumns(now time.Time) []Column {
	return append(VerdictColumns(),
		Column{Title: "STATE", Cell: stateCell},
		Column{Title: "RATE", Right: true, Cell: rateCell},
		BytesColumn, PacketsColumn,
		Column{Title: "DROPPED", Right: true, Wanted: func(r Row) bool { return live(r.Record).Dropped > 0 },
			Cell: func(r Row) tui.Cell { return tui.CountCell(live(r.Record).Dropped, tui.Red) }},
		Column{Title: "RULE", Right: true, Wanted: func(r Row) bool { return live(r.Record).Rule > 0 },
			Cell: func(r Row) tui.Cell { return tui.CountCell(uint64(live(r.Record).Rule), tui.Plain) }},
		Column{Title: "AGE", Right: true, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Age(now.Sub(r.FirstSeen))} }},
		Column{Title: "IDLE", Right: true, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Age(now.Sub(r.LastSeen))} }},
	)
}

// Titles returns the titles of all columns that a table of live flows may have.
func Titles() []string {
	var titles []string
	for _, c := range liveColumns(time.Time{}) {
		titles = append(titles, c.Title)
	}
	return titles
}

// Table returns the lines of a table of live flows, the first of which has the titles.
// Lines are cut to width; 0 means no limit.
func Table(rows []Row, now time.Time, color bool, width int) []string {
	columns := liveColumns(now)
	if slices.ContainsFunc(rows, func(r Row) bool { return r.Iface != rows[0].Iface }) {
		columns = slices.Insert(columns, 0, Column{Title: "IFACE", Cell: func(r Row) tui.Cell { return tui.Cell{Text: r.Iface} }})
	}
	return tui.Table(columns, rows, color, width)
}

func endpoint(addr netip.Addr, port uint16) string {
	return netip.AddrPortFrom(addr, port).String()
}

// labelCell shows a label; a provisional one has a question mark.
func labelCell(label string, final bool) tui.Cell {
	style := labelStyle(label)
	switch label {
	case "":
		return tui.Cell{Text: "-", Style: tui.Dim}
	case flow.Unknown:
		style = tui.Dim
	}
	if !final {
		label += "?"
	}
	return tui.Cell{Text: label, Style: style}
}

// labelStyle gives each label its own colour, as far as there are enough colours.
func labelStyle(label string) tui.Style {
	switch strings.TrimPrefix(label, "vpn-") {
	case "voip", "skype", "hangouts", "voipbuster":
		return tui.Green
	case "streaming", "netflix", "youtube", "vimeo", "spotify":
		return tui.Purple
	case "torrent", "tor":
		return tui.Red
	case "file-transfer", "ftps", "scp", "sftp":
		return tui.Yellow
	case "chat", "facebook", "aim", "icq":
		return tui.Cyan
	}
	return tui.Blue
}

func confidenceCell(label string, confidence float64) tui.Cell {
	if label == "" {
		return tui.Cell{Text: "", Style: tui.Dim}
	}
	return tui.Cell{Text: strconv.Itoa(int(confidence*100 + .5)), Style: tui.Dim}
}

// stateCell shows who decided a flow, and how it ended.
func stateCell(r Row) tui.Cell {
	state, style := "undecided", tui.Dim
	operator := flow.SourceOperator.String()
	switch {
	case r.CategorySource == operator || r.AppSource == operator:
		state, style = "operator", tui.Bold
	case r.Final:
		state, style = "final", tui.Plain
	case r.Category != "" || r.App != "":
		state = "guess"
	}
	if ended := live(r.Record).Ended; ended != "" {
		return tui.Cell{Text: state + ", " + ended, Style: tui.Dim}
	}
	return tui.Cell{Text: state, Style: style}
}

func rateCell(r Row) tui.Cell {
	if r.Rate < 1 {
		return tui.Cell{Text: "-", Style: tui.Dim}
	}
	return tui.Cell{Text: tui.Rate(r.Rate)}
}
