// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// flowsFlags are the flags of dpclass flows.
type flowsFlags struct {
	watch, ended bool
	filter, sort string
	limit        int
	interval     time.Duration
}

func newFlowsCommand(g *globals) *cobra.Command {
	f := flowsFlags{sort: "rate"}
	cmd := &cobra.Command{
		Use:   "flows [IFACE]",
		Short: "Show flows with their verdicts",
		Long: `Show the flows of an interface, or of all, with their verdicts. It reads pinned
maps only and works without an agent.

A label with a question mark is provisional. Rates come from two reads, --interval
apart. --ended shows the newest flows that have ended instead. -o json prints one
object a line; rates are in the table only, so it reads once unless it sorts by
rate.

` + filterHelp,
		Example: `  dpclass flows eth0
  dpclass flows --watch --sort bytes --limit 20
  dpclass flows eth0 --filter "category:voip,streaming !host:10.0.0.0/8"
  dpclass flows eth0 -o json --ended | jq -r .category | sort | uniq -c
  dpclass flows set eth0 "tcp 10.0.0.2:4000 10.0.0.1:80" --category voip`,
		Args:              between(0, "IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			keep, err := f.check(g)
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			sortBy := f.sort
			if g.json() && !cmd.Flags().Changed("sort") {
				sortBy = "last"
			}
			return g.withInterfaces(name, func(all []*loader.Pins) error {
				view := &flowView{flags: f, sort: sortBy, keep: keep, all: all}
				if f.watch {
					return view.watch(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
				}
				return view.print(cmd.Context(), cmd.OutOrStdout(), g.json())
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.watch, "watch", "w", false, "refresh in place until q or Ctrl-C")
	flags.BoolVar(&f.ended, "ended", false, "show flows that have ended")
	flags.StringVar(&f.filter, "filter", "", "show only flows that `EXPR` takes, see above")
	flags.Var(choice{&f.sort, sortKeys()}, "sort", "order")
	flags.IntVar(&f.limit, "limit", 0, "show at most so many flows (0: all)")
	flags.DurationVar(&f.interval, "interval", 0, "time between two reads (default 0.5s, 1s with --watch)")
	mustComplete(cmd, "sort", sortKeys()...)
	mustComplete(cmd, "filter", filterCompletions()...)
	cmd.AddCommand(newFlowsSetCommand(g))
	return cmd
}

func (f *flowsFlags) check(g *globals) (filter, error) {
	keep, err := parseFilter(f.filter)
	switch {
	case err != nil:
		return nil, usageError{err}
	case f.limit < 0:
		return nil, usagef("--limit %d: want 0 or more", f.limit)
	case f.watch && g.json():
		return nil, usagef("--watch is a table: leave -o json out")
	case f.interval < 0 || f.interval > 0 && f.interval < 50*time.Millisecond:
		return nil, usagef("--interval %s: want 50ms or more", f.interval)
	}
	return keep, nil
}

func filterCompletions() []string {
	var words []string
	for _, word := range filterWords() {
		words = append(words, word+":")
	}
	return words
}

// orders are the orders of the table, each the way round that people expect.
var orders = map[string]func(a, b row) int{
	"rate":     func(a, b row) int { return cmp.Compare(b.rate, a.rate) },
	"bytes":    func(a, b row) int { return cmp.Compare(b.Bytes, a.Bytes) },
	"packets":  func(a, b row) int { return cmp.Compare(b.Packets, a.Packets) },
	"dropped":  func(a, b row) int { return cmp.Compare(live(b.Record).Dropped, live(a.Record).Dropped) },
	"last":     func(a, b row) int { return b.LastSeen.Compare(a.LastSeen) },
	"first":    func(a, b row) int { return b.FirstSeen.Compare(a.FirstSeen) },
	"category": func(a, b row) int { return labelOrder(a.Category, b.Category) },
	"app":      func(a, b row) int { return labelOrder(a.App, b.App) },
	"src":      func(a, b row) int { return cmp.Or(a.Src.Compare(b.Src), cmp.Compare(a.SrcPort, b.SrcPort)) },
	"dst":      func(a, b row) int { return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.DstPort, b.DstPort)) },
}

// labelOrder puts undecided flows last.
func labelOrder(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

func sortKeys() []string {
	keys := []string{}
	for key := range orders {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// sortRows sorts by the key, then by what keeps lines in their places.
func sortRows(rows []row, key string) {
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(
			orders[key](a, b), orders["bytes"](a, b), cmp.Compare(a.Iface, b.Iface),
			orders["src"](a, b), orders["dst"](a, b), cmp.Compare(a.Proto, b.Proto), a.FirstSeen.Compare(b.FirstSeen),
		)
	})
}

// life names one life of a flow on one interface.
type life struct {
	iface    string
	src, dst netip.AddrPort
	proto    string
	vlan     uint32
	number   uint32 // generation
}

func lifeOf(r *flow.Record) life {
	return life{
		r.Iface, netip.AddrPortFrom(r.Src, r.SrcPort), netip.AddrPortFrom(r.Dst, r.DstPort), r.Proto, r.VLAN,
		live(r).Generation,
	}
}

// reading is what the last read saw, for rates.
type reading struct {
	at    time.Time
	bytes map[life]uint64
}

// rate makes rows of records, with the rates since the last reading, and keeps
// this one.
func (l *reading) rate(records []flow.Record, now time.Time) []row {
	seconds := now.Sub(l.at).Seconds()
	bytes := make(map[life]uint64, len(records))
	rows := make([]row, len(records))
	for i := range records {
		r := &records[i]
		key := lifeOf(r)
		bytes[key] = r.Bytes
		rows[i].Record = r
		if l.bytes == nil || seconds <= 0 {
			continue
		}
		before, known := l.bytes[key]
		if known || r.FirstSeen.After(l.at) { // a new flow: all of its bytes are of this interval
			rows[i].rate = max(float64(r.Bytes)-float64(before), 0) * 8 / seconds
		}
	}
	l.at, l.bytes = now, bytes
	return rows
}

// flowView reads flows and shows them.
type flowView struct {
	flags flowsFlags
	sort  string
	keep  filter
	all   []*loader.Pins
	last  reading
}

// read returns the flows to show, in order, and how many there are in all.
func (v *flowView) read() (rows []row, total int, err error) {
	var records []flow.Record
	for _, iface := range v.all {
		read := iface.Table().Flows
		if v.flags.ended {
			read = iface.Table().Ended
		}
		some, err := read()
		if err != nil {
			return nil, 0, err
		}
		records = append(records, some...)
	}
	rows = v.last.rate(records, time.Now())
	total = len(rows)
	rows = slices.DeleteFunc(rows, func(r row) bool { return !v.keep(r.Record) })
	sortRows(rows, v.sort)
	return rows, total, nil
}

// limited cuts the rows to --limit.
func (v *flowView) limited(rows []row) []row {
	if v.flags.limit > 0 && len(rows) > v.flags.limit {
		return rows[:v.flags.limit]
	}
	return rows
}

func (v *flowView) interval(fallback time.Duration) time.Duration {
	if v.flags.interval > 0 {
		return v.flags.interval
	}
	return fallback
}

// print shows the flows once.
func (v *flowView) print(ctx context.Context, out io.Writer, asJSON bool) error {
	rows, total, err := v.read()
	if err != nil {
		return err
	}
	if v.wantsRates(asJSON) && total > 0 {
		if !pause(ctx, v.interval(500*time.Millisecond)) {
			return ctx.Err()
		}
		if rows, total, err = v.read(); err != nil {
			return err
		}
	}
	shown := v.limited(rows)
	if asJSON {
		encoder := json.NewEncoder(out)
		for _, r := range shown {
			if err := encoder.Encode(r.Record); err != nil {
				return err
			}
		}
		return nil
	}
	lines := flowTable(shown, time.Now(), wantColor(out), 0)
	lines = append(lines, v.summary(rows, len(shown), total))
	_, err = fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

func (v *flowView) wantsRates(asJSON bool) bool {
	return !v.flags.ended && (!asJSON || v.sort == "rate")
}

// summary is the line below the table: rows are the flows that the filter took.
func (v *flowView) summary(rows []row, shown, total int) string {
	what := "flows"
	if v.flags.ended {
		what = "ended flows"
	}
	text := fmt.Sprintf("%d %s", total, what)
	if len(rows) < total {
		text = fmt.Sprintf("%d of %s", len(rows), text)
	}
	if shown < len(rows) {
		text += fmt.Sprintf(", %d shown", shown)
	}
	var rate float64
	for _, r := range rows {
		rate += r.rate
	}
	if rate >= 1 {
		text += ", " + humanRate(rate)
	}
	return text
}

// pause waits, and tells whether it was not interrupted.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func newFlowsSetCommand(g *globals) *cobra.Command {
	var category, app string
	cmd := &cobra.Command{
		Use:   "set IFACE FLOW",
		Short: "Give a flow an operator's verdict",
		Long: `Give a flow an operator's verdict: it is final and wins over the model's. FLOW is
"tcp ADDR:PORT ADDR:PORT", either end first, IPv6 addresses in brackets.`,
		Example: `  dpclass flows set eth0 "tcp 10.0.0.2:4000 10.0.0.1:80" --category voip
  dpclass flows set eth0 "udp [fd00::1]:5000 [fd00::2]:80" --category streaming --app youtube`,
		Args:              exactly("IFACE", "FLOW"),
		ValidArgsFunction: completeFlows(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			if category == "" && app == "" {
				return usagef("a verdict is missing: give --category, --app or both")
			}
			key, err := flow.ParseKey(args[1])
			if err != nil {
				return usageError{err}
			}
			return g.withInterface(args[0], func(iface *loader.Pins) error {
				return setVerdict(cmd.OutOrStdout(), g, iface, key, category, app)
			})
		},
	}
	cmd.Flags().StringVar(&category, "category", "", "category of the flow")
	cmd.Flags().StringVar(&app, "app", "", "application of the flow")
	mustCompleteFunc(cmd, "category", completeLabels(flow.Categories))
	mustCompleteFunc(cmd, "app", completeLabels(flow.Apps))
	return cmd
}

func setVerdict(out io.Writer, g *globals, iface *loader.Pins, key flow.Key, category, app string) error {
	for _, label := range []struct {
		task, name string
		known      []string
	}{{"category", category, flow.Categories}, {"app", app, flow.Apps}} {
		if err := checkLabel(label.task, label.name, label.known, iface.Labels()); err != nil {
			return err
		}
	}
	var verdict flow.Verdicts
	if category != "" {
		verdict[flow.Category] = flow.Verdict{Label: category, Confidence: 1, Source: flow.SourceOperator, Final: true}
	}
	if app != "" {
		verdict[flow.App] = flow.Verdict{Label: app, Confidence: 1, Source: flow.SourceOperator, Final: true}
	}
	err := iface.Table().SetVerdicts(key, verdict)
	if errors.Is(err, loader.ErrNoFlow) && !key.Is6() && iface.Table().SetVerdicts(key.Mapped(), verdict) == nil {
		key, err = key.Mapped(), nil
	}
	if err != nil {
		if errors.Is(err, loader.ErrNoFlow) {
			return fmt.Errorf("%w\nlist the flows with: dpclass flows %s", err, iface.Name())
		}
		return err
	}
	record, err := iface.Table().Lookup(key)
	if err != nil {
		return err
	}
	if g.json() {
		return json.NewEncoder(out).Encode(record)
	}
	_, err = fmt.Fprintf(out, "%s: category %s, app %s (operator)\n", key, orNone(record.Category), orNone(record.App))
	return err
}

// completeFlows completes an interface and then a flow of it.
func completeFlows(g *globals) cobra.CompletionFunc {
	attached := completeAttached(g, cobra.ShellCompDirectiveNoFileComp)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return attached(cmd, args, word)
		}
		var flows []string
		err := g.withInterface(args[0], func(iface *loader.Pins) error {
			records, err := iface.Table().Flows()
			for _, r := range records {
				flows = append(flows, r.Key().String())
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return flows, cobra.ShellCompDirectiveNoFileComp
	}
}
