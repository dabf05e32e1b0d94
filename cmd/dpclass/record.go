// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/cmd/dpclass/internal/recorder"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
)

// recordFlags are the flags of dpclass record.
type recordFlags struct {
	out, by, mapFile, task, maxSize string
	names                           nameFiles
	snap, packets                   int
	duration                        time.Duration
	other                           bool
}

func newRecordCommand(g *cli.Globals) *cobra.Command {
	f := recordFlags{by: string(recorder.Process), task: flow.Category.String()}
	cmd := &cobra.Command{
		Use:   "record IFACE --out DIR",
		Short: "Capture an interface into one file for each program, to train on",
		Long: `Capture the packets of an interface until Ctrl-C, into one pcapng file for each label:
DIR/LABEL/IFACE-TIME.pcapng. The label of a flow is
  --by process   the process on this machine that opened its socket (the default)
  --by cgroup    that process's systemd unit, slice or container
  --by name      the server's name: TLS, QUIC, HTTP, else the DNS answer for its address
--map gives names other labels. DIR/manifest.csv lists the captures, as "dpclass dataset
build --manifest DIR" reads it. A second run into the same directory adds to it.

The kernel says which process it is: programs on the root of the cgroup tree note it when a
socket is opened. Sockets that are older are looked up in /proc. A flow that two programs of
this machine have with each other has the label of the one that began it. A flow whose
label is not known goes to "unknown", which the manifest lists only with --other, as traffic
without a label; so does what this machine only forwards, except with --by name.

Packets are as on the wire: what the kernel handles in one piece is written in segments.

` + recorder.MapHelp,
		Example: `  dpclass record eth0 --out mine
  dpclass record eth0 --out mine --map labels.yaml --duration 1h --max-size 2GB
  dpclass record eth0 --out mine --by cgroup --packets 40
  dpclass record eth0 --out mine --by name --map names.yaml --other
  dpclass dataset build --manifest mine --out dataset`,
		Args:              cli.Exactly("IFACE"),
		ValidArgsFunction: completeOneInterface(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			return recordInterface(cmd, g, &f, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.out, "out", "", "`DIR` to write: a new one, or one of an earlier run")
	flags.Var(&cli.Choice{Value: &f.by, Words: recorder.Sources()}, "by", "what labels come from")
	flags.StringVar(&f.mapFile, "map", "", "`FILE` that gives names their labels, see above")
	flags.Var(&cli.Choice{Value: &f.task, Words: []string{flow.Category.String(), flow.App.String()}}, "task", "what the labels name")
	flags.IntVar(&f.snap, "snap", 0, "`BYTES` of each packet to keep, from the link layer on (0: all; a model reads 1500 from the IP header on)")
	flags.IntVar(&f.packets, "packets", 0, "packets of each flow to keep (0: all; \"dataset build\" takes 32 with payload)")
	flags.StringVar(&f.maxSize, "max-size", "", "stop after this `SIZE` of captures: 500MB, 2GB, 1GiB")
	flags.DurationVar(&f.duration, "duration", 0, "stop after this time: 90s, 1h30m (0: no limit)")
	flags.BoolVar(&f.other, "other", false, "list flows of unknown label in the manifest, as \"other\": a model learns to be unsure about them")
	f.names.flag(cmd)
	cli.Complete(cmd, "by", recorder.Sources()...)
	cli.Complete(cmd, "task", flow.Category.String(), flow.App.String())
	return cmd
}

// completeOneInterface completes the name of an interface.
func completeOneInterface(g *cli.Globals) cobra.CompletionFunc {
	all := completeInterfaces(g)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all(cmd, args, word)
	}
}

// config checks the flags.
func (f *recordFlags) config(iface string) (recorder.Config, error) {
	c := recorder.Config{
		Iface: iface, Out: f.out, By: recorder.By(f.by), Snap: f.snap, Packets: f.packets, Duration: f.duration, Other: f.other,
	}
	switch {
	case f.out == "":
		return c, cli.Usagef("--out is missing: name the directory to write")
	case f.snap < 0 || f.snap > 0 && f.snap < minSnap:
		return c, cli.Usagef("--snap %d: want 0 or at least %d: the headers", f.snap, minSnap)
	case f.packets < 0:
		return c, cli.Usagef("--packets %d: want 0 or more", f.packets)
	case f.duration < 0:
		return c, cli.Usagef("--duration %s: want a positive time", f.duration)
	case len(f.names) > 0 && c.By != recorder.Name:
		return c, cli.Usagef("--names needs --by name")
	}
	var err error
	if c.MaxSize, err = parseSize(f.maxSize); err != nil {
		return c, cli.Usage(fmt.Errorf("--max-size %q: %w", f.maxSize, err))
	}
	if c.Task, err = flow.ParseTask(f.task); err != nil {
		return c, cli.Usage(err)
	}
	if f.mapFile != "" {
		if c.Map, err = recorder.ReadMap(f.mapFile, c.Task); err != nil {
			return c, err
		}
	}
	c.Names, err = f.names.load()
	return c, err
}

// minSnap is the least useful number of bytes of a packet: Ethernet with a VLAN tag, IPv6,
// TCP with options.
const minSnap = 128

func recordInterface(cmd *cobra.Command, g *cli.Globals, f *recordFlags, iface string) error {
	config, err := f.config(iface)
	if err != nil {
		return err
	}
	stderr := cmd.ErrOrStderr()
	config.Log = g.Logger(stderr, "text")
	config.Started = func() {
		until := "Ctrl-C"
		if f.duration > 0 {
			until += " or for " + f.duration.String()
		}
		fmt.Fprintf(stderr, "recording %s by %s into %s until %s\n", tui.Printable(iface), f.by, tui.Printable(f.out), until)
	}
	progress := cli.NewProgress(stderr, "packets", 0)
	config.Progress = func(s *recorder.Summary) {
		detail := fmt.Sprintf("%s, %s, %s", tui.Plural(s.Flows, "flow"), tui.Plural(len(s.Labels), "label"), tui.Bytes(uint64(s.Bytes)))
		if s.Lost > 0 {
			detail += fmt.Sprintf(", %d lost", s.Lost)
		}
		progress.Step(s.Packets, detail)
	}
	defer cli.HoldSignals()() // the files must be completed
	signal.Ignore(syscall.SIGPIPE)
	var sum *recorder.Summary
	err = g.InNetns(func() (err error) {
		sum, err = recorder.Run(cmd.Context(), config)
		return err
	})
	progress.Wipe()
	if sum == nil {
		return err
	}
	if g.JSON() {
		return errors.Join(err, cli.PrintJSON(cmd.OutOrStdout(), sum))
	}
	return errors.Join(err, printRecorded(cmd.OutOrStdout(), sum))
}

// printRecorded prints what was recorded as a table.
func printRecorded(out io.Writer, sum *recorder.Summary) error {
	table := tabwriter.NewWriter(tui.Safe(out), 0, 0, 2, ' ', 0)
	if len(sum.Labels) > 0 {
		fmt.Fprintln(table, "LABEL\tFLOWS\tPACKETS\tBYTES\tFILE")
	}
	for _, l := range sum.Labels {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", l.Label, l.Flows, l.Packets, tui.Bytes(uint64(l.Bytes)), l.Path)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	reasons := map[string]string{
		"interrupted": "stopped", "duration": "the time is up", "size": "the size limit is reached", "disk-full": "the disk is full", "interface-gone": "the interface is down",
	}
	line := fmt.Sprintf("%s: %s of %s in %.1f s, %s", tui.Printable(sum.Out), tui.Plural(sum.Packets, "packet"), tui.Plural(sum.Flows, "flow"), sum.Seconds, reasons[sum.Stopped])
	for _, part := range []struct {
		n    int
		text string
	}{
		{sum.Unknown, "flows without a label"}, {sum.LeftOut, "flows left out by the map"},
		{sum.Beyond, "packets beyond --packets"}, {sum.NoFlow, "packets that are not TCP or UDP"},
		{sum.Shed, "packets did not fit into memory while their label was not known"},
		{sum.Refused, "packets belonged to more flows than can be remembered"},
		{int(min(sum.Lost, math.MaxInt)), "packets lost: the capture was too slow"},
	} {
		if part.n > 0 {
			line += fmt.Sprintf("; %d %s", part.n, part.text)
		}
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// sizeUnits are the units of sizes: SI, and those of IEC 80000-13.
var sizeUnits = map[string]float64{
	"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// parseSize reads a number of bytes; "" is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number := strings.TrimRight(text, "bkmgtiBKMGTI ")
	unit, known := sizeUnits[strings.ToLower(strings.TrimSpace(text[len(number):]))]
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !known || !(n*unit >= 1) || n*unit > 1<<62 {
		return 0, errors.New("want a size such as 500MB, 2GB or 1GiB")
	}
	return int64(n * unit), nil
}
