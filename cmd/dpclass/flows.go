// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/flowlist"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/loader/owner"
)

// flowsFlags are the flags of dpclass flows.
type flowsFlags struct {
	watch, ended bool
	filter, sort string
	limit        int
	interval     time.Duration
}

func newFlowsCommand(g *cli.Globals) *cobra.Command {
	f := flowsFlags{sort: "rate"}
	cmd := &cobra.Command{
		Use:   "flows [IFACE]",
		Short: "Show flows with their verdicts",
		Long: `Show the flows of an interface, or of all attached ones, with their verdicts. It
only reads pinned maps, so it works without an agent.

On a terminal the table leaves out columns that do not fit, the least important
first. Elsewhere it has all of them, or what fits $COLUMNS if that is set.

A label with a question mark is provisional: it may still change. Rates come from
two reads, --interval apart. --ended shows the newest flows that have ended
instead. RATE is what passes; DROP RATE is what the policy drops of the flow. PROCESS is the
process on this machine that opened the flow's socket. -o json
prints one object a line; it reads once and has no rates, unless it sorts by rate.

` + flowlist.FilterHelp,
		Example: `  dpclass flows eth0
  dpclass flows --watch --sort bytes --limit 20
  dpclass flows eth0 --filter "category:voip,streaming !host:10.0.0.0/8"
  dpclass flows eth0 -o json --ended | jq -r .category | sort | uniq -c
  dpclass flows set eth0 "tcp 10.0.0.2:4000 10.0.0.1:80" --category voip`,
		Args:              cli.Between(0, "IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			if g.JSON() && !cmd.Flags().Changed("sort") {
				f.sort = "last"
			}
			view, err := f.view(g)
			if err != nil {
				return err
			}
			return withInterfaces(g, args, func(all []*loader.Pins) (err error) {
				if view.Keep, err = flowlist.ParseFilter(f.filter, labelsOf(all)); err != nil {
					return cli.Usage(err)
				}
				finders := make([]*owner.Finder, len(all))
				defer func() {
					for _, finder := range finders {
						if finder != nil {
							err = errors.Join(err, finder.Close())
						}
					}
				}()
				for n, iface := range all {
					if finders[n], err = openProcesses(iface); err != nil {
						return err
					}
				}
				view.Source = f.source(all, finders)
				return f.show(cmd, g, view)
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.watch, "watch", "w", false, "refresh the table in place until q or Ctrl-C")
	flags.BoolVar(&f.ended, "ended", false, "show flows that have ended instead of live ones")
	flags.StringVar(&f.filter, "filter", "", "show only flows that match the `FILTER`, see above")
	flags.Var(&cli.Choice{Value: &f.sort, Words: flowlist.SortKeys()}, "sort", "order of the flows")
	flags.IntVar(&f.limit, "limit", 0, "show at most this many flows (0: all)")
	flags.DurationVar(&f.interval, "interval", 0, "time between two reads (default 0.5s, 1s with --watch)")
	cli.Complete(cmd, "sort", flowlist.SortKeys()...)
	cli.Complete(cmd, "filter", filterCompletions()...)
	cmd.AddCommand(newFlowsSetCommand(g))
	return cmd
}

// view checks the flags and returns the view that they ask for.
func (f *flowsFlags) view(g *cli.Globals) (*flowlist.View, error) {
	keep, err := flowlist.ParseFilter(f.filter, nil)
	switch {
	case err != nil:
		return nil, cli.Usage(err)
	case f.limit < 0:
		return nil, cli.Usagef("--limit %d: want 0 or more", f.limit)
	case f.watch && g.JSON():
		return nil, cli.Usagef("--watch cannot be used with -o json")
	case f.interval < 0 || f.interval > 0 && f.interval < 50*time.Millisecond:
		return nil, cli.Usagef("--interval %s: want 50ms or more", f.interval)
	}
	view := &flowlist.View{Keep: keep, Sort: f.sort, Limit: f.limit, Interval: f.interval, What: "flows"}
	if f.ended {
		view.What = "ended flows"
	}
	return view, nil
}

// labelsOf returns the labels that flows of the interfaces may have, nil without interfaces.
func labelsOf(all []*loader.Pins) (labels []string) {
	for _, iface := range all {
		labels = append(labels, iface.Labels()...)
	}
	return labels
}

// source reads the flows of the interfaces. finders know the processes of each.
func (f *flowsFlags) source(all []*loader.Pins, finders []*owner.Finder) flowlist.Source {
	return func(each func(*flow.Record) bool) error {
		for n, iface := range all {
			named := func(r *flow.Record) bool {
				setProcess(finders[n], r)
				return each(r)
			}
			if !f.ended {
				if err := iface.Table().Each(named); err != nil {
					return err
				}
				continue
			}
			ended, err := iface.Table().Ended()
			if err != nil {
				return err
			}
			for i := range ended {
				named(&ended[i]) // the list takes all
			}
		}
		return nil
	}
}

func (f *flowsFlags) show(cmd *cobra.Command, g *cli.Globals, view *flowlist.View) error {
	// An interface may have hundreds of thousands of flows. This keeps garbage from
	// doubling the memory.
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	switch {
	case f.watch:
		return view.Watch(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
	case g.JSON():
		out := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
		encoder := cli.NewEncoder(out)
		err := view.Records(cmd.Context(), !f.ended && f.sort == "rate", func(r *flow.Record) error { return encoder.Encode(r) })
		return errors.Join(err, out.Flush())
	}
	return view.Print(cmd.Context(), cmd.OutOrStdout(), !f.ended)
}

func filterCompletions() []string {
	var words []string
	for _, word := range flowlist.FilterWords() {
		words = append(words, word+":")
	}
	return words
}
