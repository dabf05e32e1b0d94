// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/lab/traffic"
)

func newTrafficCommand() *cobra.Command {
	var options traffic.Options
	var minutes float64
	var list, packages bool
	cmd := &cobra.Command{
		Use:   "traffic --out DIR",
		Short: "Make labelled captures of real programs, without the Internet",
		Long: `Make labelled captures of real programs, without the Internet. Clients, routers, servers
and VPN gateways are network namespaces of this machine. Each program runs alone and
inside VPN tunnels; its captures carry its label. DIR gets the captures and a
manifest.csv, which dpclass dataset build takes as it is.

Without --minutes, each program runs once alone and once in a tunnel. What a model must
not learn from (addresses, ports, TTL, MSS, TCP options, names) is drawn from the
seed, alike for all programs. Programs that are not installed are left out, with the
command that installs them. Needs root.`,
		Example: `  sudo dplab traffic --out traffic --quick           # every category, in less than 90 seconds
  sudo dplab traffic --out traffic --minutes 60 --seed 7
  sudo dplab traffic --out calls --class voip --class vpn-voip
  dplab traffic --list                               # the programs, and what is missing`,
		Args: cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case list:
				return listPrograms(cmd.OutOrStdout())
			case packages:
				for _, name := range traffic.MissingPackages() {
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
				return nil
			case options.Out == "":
				return cli.Usagef("--out is missing: name the directory to write")
			case minutes < 0:
				return cli.Usagef("--minutes %g: want 0 or more", minutes)
			case options.Parallel < 0:
				return cli.Usagef("--parallel %d: want 0 or more", options.Parallel)
			}
			options.Length = time.Duration(minutes * float64(time.Minute))
			var mu sync.Mutex
			stderr := cmd.ErrOrStderr()
			options.Log = func(e traffic.Event) {
				mu.Lock()
				defer mu.Unlock()
				logEvent(stderr, e)
			}
			began := time.Now()
			result, err := traffic.Run(cmd.Context(), options)
			if err != nil && cmd.Context().Err() != nil {
				return errors.New("interrupted; the network is removed, and the manifest lists what is complete")
			}
			if err != nil {
				return err
			}
			printTraffic(cmd.OutOrStdout(), options.Out, result, time.Since(began))
			if result.Failed > 0 {
				return fmt.Errorf("%d rounds failed; their captures are left out", result.Failed)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Out, "out", "", "`DIR` to write, which must be empty or not exist")
	flags.StringArrayVar(&options.Classes, "class", nil, "keep only captures of the `CATEGORY`; may be given more than once")
	flags.StringArrayVar(&options.Programs, "program", nil, "run only the program `NAME`; may be given more than once")
	flags.StringArrayVar(&options.Tunnels, "tunnel", nil, "use only the tunnel `NAME`; may be given more than once")
	flags.Float64Var(&minutes, "minutes", 0, "how long to begin new rounds (0: each program once alone and once in a tunnel)")
	flags.Uint64Var(&options.Seed, "seed", 1, "start of all random choices")
	flags.BoolVar(&options.Quick, "quick", false, "short sessions, with one program of each category")
	flags.IntVar(&options.Parallel, "parallel", 0, "rounds at the same time (0: three for each CPU)")
	flags.BoolVar(&list, "list", false, "list the programs, and what is missing to run them")
	flags.BoolVar(&packages, "missing-packages", false, "list the Debian packages that the missing programs need")
	cli.Complete(cmd, "class", traffic.Categories()...)
	cli.Complete(cmd, "tunnel", traffic.Tunnels()...)
	var names []string
	for _, p := range traffic.Programs() {
		names = append(names, p.Name)
	}
	cli.Complete(cmd, "program", names...)
	return cmd
}

// logEvent prints an event as one line, and advice.
func logEvent(out io.Writer, e traffic.Event) {
	switch {
	case e.Skipped:
		fmt.Fprintf(out, "skipped: %s: %v\n", e.Round, e.Err)
	case e.Again:
		fmt.Fprintf(out, "again:   %s: %v\n", e.Round, e.Err)
	case e.Err != nil:
		fmt.Fprintf(out, "failed:  %s: %v\n", e.Round, e.Err)
	default:
		flows, packets := 0, 0
		for _, c := range e.Captures {
			flows += c.Flows
			packets += c.Packets
		}
		fmt.Fprintf(out, "done:    %-32s %4d flows %7d packets %4.0f s\n", e.Round, flows, packets, e.Took.Seconds())
	}
	for _, advice := range fault.Advice(e.Err) {
		fmt.Fprintf(out, "         to get it: %s\n", advice)
	}
}

// printTraffic prints how much there is of each category.
func printTraffic(out io.Writer, dir string, result traffic.Result, took time.Duration) {
	type total struct{ captures, flows, packets int }
	totals := map[string]total{}
	for _, c := range result.Captures {
		category := c.Category
		if c.VPN && !strings.HasPrefix(category, "vpn-") {
			category += " in a tunnel"
		}
		t := totals[category]
		totals[category] = total{t.captures + 1, t.flows + c.Flows, t.packets + c.Packets}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "CATEGORY\tCAPTURES\tFLOWS\tPACKETS\t")
	for _, category := range slices.Sorted(maps.Keys(totals)) {
		t := totals[category]
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t\n", category, t.captures, t.flows, t.packets)
	}
	_ = table.Flush()
	fmt.Fprintf(out, "%s: %d captures in %.0f s\n", dir, len(result.Captures), took.Seconds())
}

// listPrograms prints all programs.
func listPrograms(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CATEGORY\tPROGRAM\tAPP\tQUICK\tSTATE")
	for _, p := range traffic.Programs() {
		quick, state := "", "installed"
		if p.Quick {
			quick = "yes"
		}
		if err := p.Missing(); err != nil {
			state = strings.Join(fault.Advice(err), "; ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", p.Category, p.Name, p.App, quick, state)
	}
	return table.Flush()
}
