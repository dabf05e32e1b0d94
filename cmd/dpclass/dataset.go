// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/tui"
)

func newDatasetCommand() *cobra.Command {
	command := cli.Group("dataset", "Make the data that models are trained on",
		"Turn labelled captures into the dataset directory that the trainer reads.",
		"  dpclass dataset build --captures captures --out dataset\n  dpclass dataset build --manifest corpus/manifest.csv --out dataset")
	command.AddCommand(newDatasetBuildCommand())
	return command
}

// datasetFlags are the flags of "dataset build".
type datasetFlags struct {
	captures, root, iscx, out string
	task                      string
	manifests, sets           []string
	skipUnknown, checksums    bool
	perFlow                   int
}

func newDatasetBuildCommand() *cobra.Command {
	flags := datasetFlags{task: flow.Category.String()}
	command := &cobra.Command{
		Use:   "build --captures DIR | --manifest CSV | --iscx DIR --out DIR",
		Short: "Turn labelled captures into a directory of NumPy arrays",
		Long: `Turn labelled captures into a directory of memory-mappable NumPy arrays with one
row for each payload packet (packet, category, app, flow, capture, set, index,
time, length, l4_offset, payload_offset), and a file meta.json with the names.

Give one of three sources of captures:
  --captures DIR   a directory; the first name below it is a capture's label:
                   DIR/LABEL/any.pcap or DIR/LABEL.pcap
  --manifest CSV   a CSV file with the columns path, category and app, and
                   optionally set, vpn, capture and use; or a directory of
                   "dpclass record" or "dplab traffic"; may be given more than once
  --iscx DIR       the files of the UNB ISCX VPN-nonVPN 2016 release, labelled by name

You can use labels of your own. With --captures, put traffic without a label into
"other".`,
		Example: `  dpclass dataset build --captures captures --out dataset
  dpclass dataset build --captures captures --task app --out dataset
  dpclass dataset build --manifest corpus/manifest.csv --out dataset
  dpclass dataset build --manifest corpus/manifest.csv --manifest traffic/manifest.csv --out dataset
  dpclass dataset build --manifest recorded --out dataset
  dpclass dataset build --manifest labels.csv --root /captures --set office --out dataset
  dpclass dataset build --iscx /data/ISCX-VPN-NonVPN-2016 --out iscx
  dpclass dataset build --manifest labels.csv --checksums --per-flow 0 --out all`,
		Args: cli.Exactly(),
		RunE: func(command *cobra.Command, _ []string) error { return buildDataset(command, &flags) },
	}
	set := command.Flags()
	set.StringVar(&flags.captures, "captures", "", "`DIR` of captures; the first name below it is a capture's label")
	set.Var(&cli.Choice{Value: &flags.task, Words: []string{flow.Category.String(), flow.App.String()}}, "task", "with --captures: what the labels name")
	set.StringArrayVar(&flags.manifests, "manifest", nil, "CSV `FILE` that lists and labels captures, or the directory of dpclass record; may be given more than once")
	set.StringVar(&flags.root, "root", "", "`DIR` that relative paths in the manifests start from (default: each manifest's own)")
	set.StringArrayVar(&flags.sets, "set", nil, "use only the manifests' rows of the set `NAME`; may be given more than once")
	set.StringVar(&flags.iscx, "iscx", "", "`DIR` of the ISCX VPN-nonVPN 2016 captures")
	set.BoolVar(&flags.skipUnknown, "skip-unknown", false, "with --iscx: leave out files with unknown names")
	set.StringVar(&flags.out, "out", "", "`DIR` to write, which must be empty or not exist")
	set.BoolVar(&flags.checksums, "checksums", false, "keep the checksums in the vectors")
	set.IntVar(&flags.perFlow, "per-flow", dataset.PerFlow, "payload packets to keep per flow (0: all)")
	cli.Complete(command, "task", flow.Category.String(), flow.App.String())
	return command
}

func buildDataset(command *cobra.Command, flags *datasetFlags) error {
	sources := 0
	for _, given := range []bool{flags.captures != "", len(flags.manifests) > 0, flags.iscx != ""} {
		if given {
			sources++
		}
	}
	switch {
	case flags.out == "":
		return cli.Usagef("--out is missing: name the directory to write")
	case sources != 1:
		return cli.Usagef("give one of --captures DIR, --manifest CSV and --iscx DIR")
	case len(flags.manifests) == 0 && (flags.root != "" || len(flags.sets) > 0):
		return cli.Usagef("--root and --set need --manifest")
	case flags.iscx == "" && flags.skipUnknown:
		return cli.Usagef("--skip-unknown needs --iscx")
	case flags.captures == "" && command.Flags().Changed("task"):
		return cli.Usagef("--task needs --captures; a manifest has a column for each task")
	case flags.perFlow < 0:
		return cli.Usagef("--per-flow %d: want 0 or more", flags.perFlow)
	}
	stderr := command.ErrOrStderr()
	task, err := flow.ParseTask(flags.task)
	if err != nil {
		return cli.Usage(err)
	}
	captures, err := datasetCaptures(flags, task, stderr)
	if err != nil {
		return err
	}
	began := time.Now()
	progress := cli.NewProgress(stderr, "captures", len(captures))
	skipped := skips{progress: progress, of: len(captures)}
	meta, err := dataset.Build(command.Context(), flags.out, captures, dataset.BuildOptions{
		Source:    flags.captures + strings.Join(flags.manifests, ", ") + flags.iscx, // one of them
		Checksums: flags.checksums,
		PerFlow:   flags.perFlow,
		Aggregation: dataset.Aggregation{
			Samples: flow.DefaultSamples, Growth: model.DefaultGrowth, Floor: model.DefaultFloor,
		},
		Warn:     func(err error) { progress.Note("dpclass: warning: %v", err) },
		Skip:     func(c dataset.Capture, err error) { skipped.add(c.File, err) },
		Progress: func(captures, packets int) { progress.Step(captures, fmt.Sprintf("%d packets", packets)) },
	})
	progress.Wipe()
	if err != nil {
		return errors.Join(err, skipped.err())
	}
	out := command.OutOrStdout()
	if flags.captures != "" {
		if err := printLabels(out, stderr, meta.Captures, task); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%s: %d packets of %d flows in %d captures, %.1f s\n",
		tui.Printable(flags.out), meta.Packets, meta.Flows, len(meta.Captures)-len(skipped.names), time.Since(began).Seconds())
	return errors.Join(err, skipped.err())
}

// fewFlows is the number of flows below which a label gets a warning.
const fewFlows = 20

// printLabels prints how much data each label has, and warns about labels that a model
// can hardly learn.
func printLabels(out, warn io.Writer, captures []dataset.Capture, task flow.Task) error {
	table := tabwriter.NewWriter(tui.Safe(out), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "LABEL\tCAPTURES\tFLOWS\tPACKETS\t")
	var labels []string
	counts := map[string][3]int{}
	for _, c := range captures { // sorted by path, which groups them by label
		if c.Skipped != "" {
			continue
		}
		label := c.Label(task)
		if _, known := counts[label]; !known {
			labels = append(labels, label)
		}
		n := counts[label]
		counts[label] = [3]int{n[0] + 1, n[1] + c.Flows, n[2] + c.Packets}
	}
	for _, label := range labels {
		n := counts[label]
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t\n", label, n[0], n[1], n[2])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, label := range labels {
		if n := counts[label][1]; n < fewFlows {
			fmt.Fprintf(warn, "dpclass: warning: label %q has %d flows; a model needs at least two, and dozens to work well\n", label, n)
		}
	}
	return nil
}

// datasetCaptures lists the captures that the flags name.
func datasetCaptures(flags *datasetFlags, task flow.Task, stderr io.Writer) ([]dataset.Capture, error) {
	if flags.captures != "" {
		return dataset.ReadLabelled(flags.captures, task)
	}
	if flags.iscx != "" {
		var skip func(string)
		if flags.skipUnknown {
			skip = func(path string) {
				fmt.Fprintf(stderr, "dpclass: warning: %q is not a file name of the ISCX release; it is left out\n", path)
			}
		}
		return dataset.ReadISCX(flags.iscx, skip)
	}
	if len(flags.manifests) == 1 {
		return readManifest(flags.manifests[0], flags.root, flags.sets)
	}
	return readManifests(flags.manifests, flags.root, flags.sets)
}
