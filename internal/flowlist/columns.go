// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"cmp"
	"iter"
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

// The order in which columns leave a table that is too wide. Those that stay say which
// flow it is, what it is and what a policy did to it.
const (
	_ = iota
	leaveIdle
	leavePackets
	leaveAge
	leaveState // a question mark says that a label is provisional
	leaveAppPercent
	leaveProcess
	leaveRate
	leaveApp // the name usually says it too
	leavePercent
	leaveBytes
	leaveName
)

// VerdictColumns returns the columns that every table of flows begins with: which
// flow it is, its verdicts, and what decided them.
func VerdictColumns() []Column {
	return []Column{
		{Title: "PROTO", Cell: func(r Row) tui.Cell { return tui.Cell{Text: cmp.Or(r.Protocol, r.Proto)} }},
		{Title: "SOURCE", Cell: func(r Row) tui.Cell { return tui.Cell{Text: endpoint(r.Src, r.SrcPort)} }},
		{Title: "DESTINATION", Cell: func(r Row) tui.Cell { return tui.Cell{Text: endpoint(r.Dst, r.DstPort)} }},
		{Title: "NAME", Leaves: leaveName, Wanted: func(r Row) bool { return r.Name != "" }, Cell: nameCell},
		{Title: "CATEGORY", Cell: func(r Row) tui.Cell { return labelCell(r.Category, r.CategoryFinal) }},
		{Title: "%", Right: true, Leaves: leavePercent, Wanted: func(r Row) bool { return confidence(r.CategorySource, 1) != "" },
			Cell: func(r Row) tui.Cell { return confidenceCell(r.CategorySource, r.CategoryConfidence) }},
		{Title: "APP", Leaves: leaveApp, Cell: func(r Row) tui.Cell { return labelCell(r.App, r.AppFinal) }},
		{Title: "%", Right: true, Leaves: leaveAppPercent, Wanted: func(r Row) bool { return confidence(r.AppSource, 1) != "" },
			Cell: func(r Row) tui.Cell { return confidenceCell(r.AppSource, r.AppConfidence) }},
		{Title: "BY", Cell: sourceCell},
	}
}

// processCell shows the process that opened a flow's socket.
func processCell(r Row) tui.Cell {
	if r.Process == "" {
		return tui.Cell{Text: "-", Style: tui.Dim}
	}
	return tui.Cell{Text: tui.Printable(r.Process)}
}

// PacketsColumn and BytesColumn show what a flow has carried.
var (
	PacketsColumn = Column{Title: "PACKETS", Right: true, Leaves: leavePackets, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Count(r.Packets)} }}
	BytesColumn   = Column{Title: "BYTES", Right: true, Leaves: leaveBytes, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Bytes(r.Bytes)} }}
)

// liveColumns returns the columns of flows on an interface, from left to right.
func liveColumns(now time.Time) []Column {
	return append(VerdictColumns(),
		Column{Title: "PROCESS", Leaves: leaveProcess, Wanted: func(r Row) bool { return r.Process != "" }, Cell: processCell},
		Column{Title: "STATE", Leaves: leaveState, Cell: stateCell},
		Column{Title: "RATE", Right: true, Leaves: leaveRate, Cell: func(r Row) tui.Cell { return rateCell(r.Rate, tui.Plain) }},
		Column{Title: "DROP RATE", Right: true, Leaves: leaveRate, Wanted: func(r Row) bool { return r.DropRate >= 1 },
			Cell: func(r Row) tui.Cell { return rateCell(r.DropRate, tui.Red) }},
		BytesColumn, PacketsColumn,
		Column{Title: "DROPPED", Right: true, Wanted: func(r Row) bool { return live(r.Record).Dropped > 0 },
			Cell: func(r Row) tui.Cell { return tui.CountCell(live(r.Record).Dropped, tui.Red) }},
		Column{Title: "RULE", Right: true, Wanted: func(r Row) bool { return live(r.Record).Rule > 0 || live(r.Record).RuleOut > 0 },
			Cell: func(r Row) tui.Cell { return ruleCell(live(r.Record)) }},
		Column{Title: "AGE", Right: true, Leaves: leaveAge, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Age(now.Sub(r.FirstSeen))} }},
		Column{Title: "IDLE", Right: true, Leaves: leaveIdle, Cell: func(r Row) tui.Cell { return tui.Cell{Text: tui.Age(now.Sub(r.LastSeen))} }},
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

// writeTable hands the lines of a table of live flows to each, the first of which has the
// titles. Lines are cut to width; 0 means no limit. It asks for the rows more than once.
func writeTable(rows iter.Seq[Row], now time.Time, color bool, width int, each func(line string) error) error {
	columns := liveColumns(now)
	if severalInterfaces(rows) {
		columns = slices.Insert(columns, 0, Column{Title: "IFACE", Cell: func(r Row) tui.Cell { return tui.Cell{Text: r.Iface} }})
	}
	return tui.Lines(columns, rows, color, width, each)
}

func severalInterfaces(rows iter.Seq[Row]) bool {
	first, several := "", false
	for r := range rows {
		if first == "" {
			first = r.Iface
		}
		if several = r.Iface != first; several {
			break
		}
	}
	return several
}

func endpoint(addr netip.Addr, port uint16) string {
	return netip.AddrPortFrom(addr, port).String()
}

// ruleCell shows the rule of a flow, or those of received and of sent packets if they differ. Rules of a dry run are
// marked.
func ruleCell(l flow.Live) tui.Cell {
	in, out := tui.CountCell(uint64(l.Rule), tui.Plain), tui.CountCell(uint64(l.RuleOut), tui.Plain)
	cell := in
	if l.Rule != l.RuleOut {
		cell = tui.Cell{Text: in.Text + "/" + out.Text}
	}
	if l.DryRun {
		cell = tui.Cell{Text: "dry " + cell.Text, Style: tui.Dim}
	}
	return cell
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

// maxNameShown is how much of a server name a table shows.
const maxNameShown = 32

// nameCell shows a server name. If it is too long, its end is shown, which says whose it
// is. A name that is only a conclusion has a question mark.
func nameCell(r Row) tui.Cell {
	name := tui.Printable(r.Name)
	if runes := []rune(name); len(runes) > maxNameShown {
		name = "…" + string(runes[len(runes)-maxNameShown+1:])
	}
	switch {
	case name == "":
		return tui.Cell{Text: "-", Style: tui.Dim}
	case name == flow.HiddenName:
		return tui.Cell{Text: name, Style: tui.Dim}
	case r.NameSource == flow.NameDNS.String() || r.NameSource == flow.NameServer.String():
		return tui.Cell{Text: name + "?"}
	}
	return tui.Cell{Text: name}
}

// confidence returns a probability in percent, and "" for a verdict that has none: a
// name, a protocol or an operator decided it.
func confidence(source string, probability float64) string {
	if source != flow.SourceModel.String() {
		return ""
	}
	return strconv.Itoa(int(probability*100 + .5))
}

func confidenceCell(source string, probability float64) tui.Cell {
	return tui.Cell{Text: confidence(source, probability), Style: tui.Dim}
}

// sourceCell shows what decided the category, or the application where there is no
// category.
func sourceCell(r Row) tui.Cell {
	switch r.Source {
	case "":
		return tui.Cell{Text: "-", Style: tui.Dim}
	case flow.SourceOperator.String():
		return tui.Cell{Text: r.Source, Style: tui.Bold}
	}
	return tui.Cell{Text: r.Source}
}

// stateCell shows whether a flow is decided, and how it ended.
func stateCell(r Row) tui.Cell {
	state, style := "undecided", tui.Dim
	switch {
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

func rateCell(rate float64, style tui.Style) tui.Cell {
	if rate < 1 {
		return tui.Cell{Text: "-", Style: tui.Dim}
	}
	return tui.Cell{Text: tui.Rate(rate), Style: style}
}
