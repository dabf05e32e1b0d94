// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
)

// classifyFlags are the flags of classify.
type classifyFlags struct {
	models        []string
	samples       int
	minConfidence float64
	filter        string
}

func newClassifyCommand(g *globals) *cobra.Command {
	var flags classifyFlags
	command := &cobra.Command{
		Use:   "classify FILE...",
		Short: "Classify the flows of capture files",
		Long: `Classify the flows of pcap and pcapng files, plain or compressed (gzip, zstd), as
a live interface would: from the first payload packets of each flow, with the
same early stop. "-" reads standard input. No root and no interface is needed.

All packets of a 5-tuple in one file are one flow. A verdict with a question mark
is provisional: the flow has fewer payload packets than the model wants, and what
there is does not make it sure. Link types: Ethernet, raw IP, Linux cooked (v1
and v2), null and loop.

` + filterHelp,
		Example: `  dpclass classify capture.pcap
  dpclass classify -o json *.pcapng.gz | jq -r 'select(.category == "voip") | .src'
  tcpdump -w - -c 1000 | dpclass classify -
  dpclass classify call.pcap --model cnn-traffic --filter proto:udp`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("FILE is missing: name pcap or pcapng files, or - for standard input")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error { return classify(command, g, &flags, args) },
	}
	set := command.Flags()
	set.StringArrayVar(&flags.models, "model", nil, "`NAME|FILE` of the model (twice: one for each task)")
	set.IntVar(&flags.samples, "samples", 0, "payload packets of a flow that are looked at (default: the model's)")
	set.Float64Var(&flags.minConfidence, "min-confidence", 0, "final verdicts below this probability are \"unknown\"")
	set.StringVar(&flags.filter, "filter", "", "show only flows that match this `expression`")
	mustCompleteFunc(command, "model", completeModels)
	return command
}

// offlineRecord is a flow of a file. File is there where several files are read.
type offlineRecord struct {
	File string `json:"file,omitempty"`
	flow.Record
}

func classify(command *cobra.Command, g *globals, flags *classifyFlags, names []string) error {
	shown, err := parseFilter(flags.filter)
	if err != nil {
		return usageError{err}
	}
	o, err := newOffline(g, flags.models, classifier.Options{Samples: flags.samples, MinConfidence: flags.minConfidence})
	if err != nil {
		return err
	}
	defer o.Close()
	o.perFlow = o.classifier.Samples()

	out := bufio.NewWriter(command.OutOrStdout())
	progress := newProgress(command.ErrOrStderr(), "packets", 0)
	defer progress.done()
	// A file that cannot be read does not keep the others from being shown.
	var failed []error
	for i, name := range names {
		records, file, err := classifyFile(command.Context(), o, name, progress)
		if errors.Is(err, errInterrupted) {
			return err
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		progress.done()
		records = slices.DeleteFunc(records, func(r flow.Record) bool { return !shown(&r) })
		if g.json() {
			err = printRecords(out, name, records, len(names) > 1)
		} else {
			err = printFile(out, command.OutOrStdout(), name, records, file, len(names) > 1, i > 0)
		}
		if err := errors.Join(err, out.Flush()); err != nil {
			return err
		}
		if file.warning != nil {
			progress.note("dpclass: warning: %v", file.warning)
		}
	}
	return errors.Join(failed...)
}

// classifyFile returns the flows of one file with their verdicts.
func classifyFile(ctx context.Context, o *offline, name string, progress *progress) ([]flow.Record, *offlineFile, error) {
	rows := map[*dataset.Flow]*classifier.Probabilities{}
	o.each = func(f *dataset.Flow, one classifier.Probabilities) {
		all := rows[f]
		if all == nil {
			all = &classifier.Probabilities{}
			rows[f] = all
		}
		all.Append(one)
	}
	o.tick = func(packets int) { progress.step(packets, name) }
	file, err := o.run(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	records := make([]flow.Record, 0, len(file.flows))
	for _, f := range file.flows {
		record := flow.Record{
			Src: f.Src.Addr(), Dst: f.Dst.Addr(), SrcPort: f.Src.Port(), DstPort: f.Dst.Port(), Proto: f.Key.Proto.String(),
			Packets: f.Packets, Bytes: f.Bytes, FirstSeen: f.First, LastSeen: f.Last,
		}
		if rows := rows[f]; rows != nil {
			verdict, samples := o.classifier.Decide(rows)
			record.SetVerdicts(&verdict)
			record.Samples = samples
		}
		records = append(records, record)
	}
	return records, file, nil
}

func printRecords(out io.Writer, name string, records []flow.Record, several bool) error {
	encoder := json.NewEncoder(out)
	for _, record := range records {
		line := offlineRecord{Record: record}
		if several {
			line.File = name
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// classifyColumns are the columns of the table.
func classifyColumns() []column {
	return append(verdictColumns(),
		column{title: "SAMPLES", right: true, cell: func(r row, _ time.Time) cell { return countCell(uint64(r.Samples), plain) }},
		column{title: "PACKETS", right: true, cell: func(r row, _ time.Time) cell { return cell{text: humanCount(r.Packets)} }},
		column{title: "BYTES", right: true, cell: func(r row, _ time.Time) cell { return cell{text: humanBytes(r.Bytes)} }},
		column{title: "START", right: true, cell: func(r row, start time.Time) cell { return cell{text: seconds(r.FirstSeen.Sub(start))} }},
		column{title: "LASTS", right: true, cell: func(r row, _ time.Time) cell { return cell{text: seconds(r.LastSeen.Sub(r.FirstSeen))} }},
	)
}

// seconds is a duration with a digit behind the point while that says something.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return humanAge(d)
}

// printFile prints the flows of a file as a table. screen is where it ends up.
func printFile(out io.Writer, screen io.Writer, name string, records []flow.Record, file *offlineFile, several, gap bool) error {
	color := wantColor(screen)
	if gap {
		fmt.Fprintln(out)
	}
	if several {
		fmt.Fprintln(out, paint(name, bold, color))
	}
	if len(records) > 0 {
		start := records[0].FirstSeen
		for _, record := range records {
			if record.FirstSeen.Before(start) {
				start = record.FirstSeen
			}
		}
		columns := classifyColumns()
		var titles []cell
		rights := make([]bool, len(columns))
		for i, c := range columns {
			titles = append(titles, cell{c.title, bold})
			rights[i] = c.right
		}
		cells := [][]cell{titles}
		for i := range records {
			var line []cell
			for _, c := range columns {
				line = append(line, c.cell(row{Record: &records[i]}, start))
			}
			cells = append(cells, line)
		}
		for _, line := range align(cells, rights, color, 0) {
			fmt.Fprintln(out, line)
		}
	}
	_, err := fmt.Fprintln(out, paint(summary(records, file), dim, color))
	return err
}

// summary is the line under the table.
func summary(records []flow.Record, file *offlineFile) string {
	var names []string
	count := map[string]int{}
	for _, record := range records {
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
	text := fmt.Sprintf("%s of %s", plural(len(records), "flow"), plural(file.stats.Frames, "packet"))
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	var passed []string
	if n := file.stats.Frames - file.stats.Packets; n > 0 {
		passed = append(passed, fmt.Sprintf("%d not IP", n))
	}
	for reason := vector.OK + 1; reason < vector.Reasons; reason++ {
		if n := file.passed[reason]; n > 0 {
			passed = append(passed, fmt.Sprintf("%d %s", n, strings.ReplaceAll(reason.String(), "_", " ")))
		}
	}
	if len(passed) > 0 {
		text += "; without a flow: " + strings.Join(passed, ", ")
	}
	return text
}

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}
