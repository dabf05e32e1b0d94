// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
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
loop. A file that cannot be read is skipped, the others are read, and the exit code
is 1. A packet that a capture has from several interfaces counts once.

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
	addSamples(command, &flags.samples)
	set.Float64Var(&flags.minConfidence, "min-confidence", 0, "probability, 0 to 1, below which a final verdict becomes \"unknown\" ('models show' says how many flows that leaves)")
	set.StringVar(&flags.filter, "filter", "", "show only flows that match the `FILTER`, see above")
	set.BoolVar(&flags.dns, "dns", false, dnsOfflineHelp)
	set.BoolVar(&flags.explain, "explain", false, "say for each flow why it has its verdict")
	addEvidence(command, &flags.evidence)
	flags.names.flag(command)
	cli.CompleteFunc(command, "model", completeModels)
	return command
}

// labels returns the labels that a filter may name, nil without a filter.
func (f *classifyFlags) labels() ([]string, error) {
	if f.filter == "" {
		return nil, nil
	}
	models, err := loadModels(f.models)
	if err != nil {
		return nil, err
	}
	catalogue, err := f.names.load()
	if err != nil {
		return nil, err
	}
	return slices.Concat(flow.Vocabulary, model.NewLabels(models), knownApps(catalogue)), nil
}

func classify(command *cobra.Command, g *cli.Globals, flags *classifyFlags, names []string) error {
	labels, err := flags.labels()
	if err != nil {
		return err
	}
	keep, err := flowlist.ParseFilter(flags.filter, labels)
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
	// A capture may have millions of flows. This keeps garbage from doubling the memory.
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	// If one file cannot be read, still show the others.
	skipped := skips{progress: progress, of: len(names)}
	for i, name := range names {
		file, err := reader.Classify(command.Context(), name, func(packets int) { progress.Step(packets, name) })
		if command.Context().Err() != nil {
			return command.Context().Err()
		}
		if err != nil {
			skipped.add(name, err)
			continue
		}
		progress.Wipe()
		shown := name
		if len(names) == 1 {
			shown = ""
		}
		print := printer{out: out, keep: keep, color: tui.WantColor(command.OutOrStdout())}
		switch {
		case flags.explain:
			err = explainFile(command.Context(), reader, name, print.kept(file), func(pages []*explanation.Page) error {
				return printPages(out, g, pages, print.color, shown)
			})
		case g.JSON():
			err = print.json(shown, file)
		default:
			if i > 0 {
				fmt.Fprintln(out)
			}
			err = print.table(shown, file)
		}
		file.Close()
		if err := errors.Join(err, out.Flush()); err != nil {
			return err
		}
		for _, warning := range file.Warnings {
			progress.Note("dpclass: warning: %v", warning)
		}
	}
	return skipped.err()
}

// gcPercent is how much the heap may grow before garbage is collected.
const gcPercent = 10

// printer prints the flows of capture files.
type printer struct {
	out   io.Writer
	keep  flowlist.Filter
	color bool
}

// kept returns the flows that the filter keeps. Each call reads them again.
func (p *printer) kept(file *offline.File) iter.Seq[*flow.Record] {
	return func(yield func(*flow.Record) bool) {
		for record := range file.Flows() {
			if p.keep(record) && !yield(record) {
				return
			}
		}
	}
}

// fileRecord is a flow of a file, as -o json prints it.
type fileRecord struct {
	File string `json:"file,omitempty"` // set if several files are read
	*flow.Record
}

// json prints the flows of a file; name is "" for the only one.
func (p *printer) json(name string, file *offline.File) error {
	encoder := cli.NewEncoder(p.out)
	for record := range p.kept(file) {
		if err := encoder.Encode(fileRecord{name, record}); err != nil {
			return err
		}
	}
	return nil
}

// table prints the flows of a file as a table; name is "" for the only one.
func (p *printer) table(name string, file *offline.File) error {
	if name != "" {
		fmt.Fprintln(p.out, tui.Paint(tui.Printable(name), tui.Bold, p.color))
	}
	sum := newSummary(file)
	for record := range p.kept(file) {
		sum.add(record)
	}
	columns := append(flowlist.VerdictColumns(),
		flowlist.Column{Title: "SAMPLES", Right: true, Cell: func(r flowlist.Row) tui.Cell { return tui.CountCell(uint64(r.Samples), tui.Plain) }},
		flowlist.PacketsColumn, flowlist.BytesColumn,
		flowlist.Column{Title: "START", Right: true, Cell: func(r flowlist.Row) tui.Cell { return tui.Cell{Text: tui.Seconds(r.FirstSeen.Sub(sum.start))} }},
		flowlist.Column{Title: "LASTS", Right: true, Cell: func(r flowlist.Row) tui.Cell { return tui.Cell{Text: tui.Seconds(r.LastSeen.Sub(r.FirstSeen))} }},
	)
	rows := func(yield func(flowlist.Row) bool) {
		for record := range p.kept(file) {
			if !yield(flowlist.Row{Record: record}) {
				return
			}
		}
	}
	if sum.flows > 0 {
		err := tui.Lines(columns, rows, p.color, 0, func(line string) error {
			_, err := fmt.Fprintln(p.out, line)
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(p.out, tui.Paint(sum.String(), tui.Dim, p.color))
	return err
}

// summary is the line below the table.
type summary struct {
	file  *offline.File
	start time.Time // of the first flow
	flows int
	names []string
	count map[string]int // flows by label
}

func newSummary(file *offline.File) *summary { return &summary{file: file, count: map[string]int{}} }

// add counts a flow.
func (s *summary) add(record *flow.Record) {
	if s.flows == 0 || record.FirstSeen.Before(s.start) {
		s.start = record.FirstSeen
	}
	s.flows++
	label := cmp.Or(record.Category, record.App, "undecided")
	if s.count[label]++; s.count[label] == 1 {
		s.names = append(s.names, label)
	}
}

func (s *summary) String() string {
	slices.SortStableFunc(s.names, func(a, b string) int { return s.count[b] - s.count[a] })
	var parts []string
	for _, name := range s.names {
		parts = append(parts, fmt.Sprintf("%d %s", s.count[name], tui.Printable(name)))
	}
	text := fmt.Sprintf("%s of %s", tui.Plural(s.flows, "flow"), tui.Plural(s.file.Frames, "packet"))
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	var passed []string
	for _, p := range s.file.Passed {
		passed = append(passed, fmt.Sprintf("%d %s", p.Packets, strings.ReplaceAll(p.Reason, "_", " ")))
	}
	if len(passed) > 0 {
		text += "; without a flow: " + strings.Join(passed, ", ")
	}
	return text
}
