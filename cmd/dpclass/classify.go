// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/explanation"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/offline"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/flowlist"
	"github.com/dpclass/dpclass/internal/tui"
)

// classifyFlags are the flags of classify.
type classifyFlags struct {
	models        []string
	samples       int
	minConfidence float64
	filter        string
	evidence      string
	names         nameFiles
	dns, explain  bool
}

func newClassifyCommand(g *cli.Globals) *cobra.Command {
	var flags classifyFlags
	command := &cobra.Command{
		Use:   "classify FILE...",
		Short: "Classify the flows of capture files",
		Long: `Classify the flows of pcap and pcapng files, plain or compressed (gzip, zstd), as
a live interface would: from the first payload packets of each flow, and with the
same early stop. "-" reads standard input. It needs no root and no interface.

What decides a flow, in this order: its server name, if the catalogue lists it; its
protocol, if that says what the flow is; else the model. --explain says for each flow
why, as dpclass explain does.

All packets of a 5-tuple in one file are one flow. A verdict with a question mark
is provisional: the flow has fewer payload packets than the model reads, and the
model is not sure. Link types: Ethernet, raw IP, Linux cooked (v1 and v2), null and
loop.

` + flowlist.FilterHelp,
		Example: `  dpclass classify capture.pcap
  dpclass classify -o json *.pcapng.gz | jq -r 'select(.category == "voip") | .src'
  tcpdump -w - -c 1000 | dpclass classify -
  dpclass classify office.pcap --explain --filter name:example.com
  dpclass classify call.pcap --model cnn-traffic --filter proto:udp`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("FILE is missing: name pcap or pcapng files, or - for standard input")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error { return classify(command, g, &flags, args) },
	}
	set := command.Flags()
	set.StringArrayVar(&flags.models, "model", nil, "`NAME` of a shipped model, or FILE.onnx; give it twice for one model per task")
	set.IntVar(&flags.samples, "samples", 0, "payload packets to read per flow (default: the model's)")
	set.Float64Var(&flags.minConfidence, "min-confidence", 0, "probability, 0 to 1, below which a final verdict becomes \"unknown\" ('models show' says how many flows that leaves)")
	set.StringVar(&flags.filter, "filter", "", "show only flows that match the `FILTER`, see above")
	set.BoolVar(&flags.dns, "dns", false, dnsOfflineHelp)
	set.BoolVar(&flags.explain, "explain", false, "say for each flow why it has its verdict")
	addEvidence(command, &flags.evidence)
	flags.names.flag(command)
	cli.CompleteFunc(command, "model", completeModels)
	return command
}

func classify(command *cobra.Command, g *cli.Globals, flags *classifyFlags, names []string) error {
	keep, err := flowlist.ParseFilter(flags.filter)
	if err != nil {
		return cli.Usage(err)
	}
	if flags.explain && slices.Contains(names, capture.Stdin) {
		return cli.Usagef("--explain reads a capture twice: name a file instead of standard input")
	}
	reader, err := openModels(g, flags.models, &flags.names, classifier.Options{
		Samples: flags.samples, MinConfidence: flags.minConfidence, Evidence: classifier.Evidence(flags.evidence),
	})
	if err != nil {
		return err
	}
	defer reader.Close()
	reader.DNS = flags.dns

	out := bufio.NewWriter(command.OutOrStdout())
	progress := cli.NewProgress(command.ErrOrStderr(), "packets", 0)
	defer progress.Wipe()
	several := len(names) > 1
	// If one file cannot be read, still show the others.
	var failed []error
	for i, name := range names {
		file, err := reader.Classify(command.Context(), name, func(packets int) { progress.Step(packets, name) })
		if command.Context().Err() != nil {
			return command.Context().Err()
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		progress.Wipe()
		file.Records = slices.DeleteFunc(file.Records, func(r flow.Record) bool { return !keep(&r) })
		shown := name
		if !several {
			shown = ""
		}
		switch {
		case flags.explain:
			var pages []*explanation.Page
			if pages, err = explainFile(command.Context(), reader, name, file.Records); err == nil {
				err = printPages(out, g, pages, tui.WantColor(command.OutOrStdout()), shown)
			}
		case g.JSON():
			err = cli.PrintJSON(out, fileRecords(shown, file)...)
		default:
			if i > 0 {
				fmt.Fprintln(out)
			}
			err = printFile(out, shown, file, tui.WantColor(command.OutOrStdout()))
		}
		if err := errors.Join(err, out.Flush()); err != nil {
			return err
		}
		if file.Warning != nil {
			progress.Note("dpclass: warning: %v", file.Warning)
		}
	}
	return errors.Join(failed...)
}

// fileRecord is a flow of a file, as -o json prints it.
type fileRecord struct {
	File string `json:"file,omitempty"` // set if several files are read
	flow.Record
}

func fileRecords(name string, file *offline.File) []fileRecord {
	var records []fileRecord
	for _, r := range file.Records {
		records = append(records, fileRecord{name, r})
	}
	return records
}

// printFile prints the flows of a file as a table; name is "" for the only one.
func printFile(out io.Writer, name string, file *offline.File, color bool) error {
	if name != "" {
		fmt.Fprintln(out, tui.Paint(name, tui.Bold, color))
	}
	var rows []flowlist.Row
	var start time.Time
	for i := range file.Records {
		r := &file.Records[i]
		rows = append(rows, flowlist.Row{Record: r})
		if i == 0 || r.FirstSeen.Before(start) {
			start = r.FirstSeen
		}
	}
	columns := append(flowlist.VerdictColumns(),
		flowlist.Column{Title: "SAMPLES", Right: true, Cell: func(r flowlist.Row) tui.Cell { return tui.CountCell(uint64(r.Samples), tui.Plain) }},
		flowlist.PacketsColumn, flowlist.BytesColumn,
		flowlist.Column{Title: "START", Right: true, Cell: func(r flowlist.Row) tui.Cell { return tui.Cell{Text: tui.Seconds(r.FirstSeen.Sub(start))} }},
		flowlist.Column{Title: "LASTS", Right: true, Cell: func(r flowlist.Row) tui.Cell { return tui.Cell{Text: tui.Seconds(r.LastSeen.Sub(r.FirstSeen))} }},
	)
	if len(rows) > 0 {
		for _, line := range tui.Table(columns, rows, color, 0) {
			fmt.Fprintln(out, line)
		}
	}
	_, err := fmt.Fprintln(out, tui.Paint(summary(file), tui.Dim, color))
	return err
}

// summary is the line below the table.
func summary(file *offline.File) string {
	var names []string
	count := map[string]int{}
	for _, record := range file.Records {
		label := record.Category
		if label == "" {
			label = record.App
		}
		if label == "" {
			label = "undecided"
		}
		if count[label]++; count[label] == 1 {
			names = append(names, label)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return count[b] - count[a] })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", count[name], name))
	}
	text := fmt.Sprintf("%s of %s", tui.Plural(len(file.Records), "flow"), tui.Plural(file.Frames, "packet"))
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	var passed []string
	for _, p := range file.Passed {
		passed = append(passed, fmt.Sprintf("%d %s", p.Packets, strings.ReplaceAll(p.Reason, "_", " ")))
	}
	if len(passed) > 0 {
		text += "; without a flow: " + strings.Join(passed, ", ")
	}
	return text
}
