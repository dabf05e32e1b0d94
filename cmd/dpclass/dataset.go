// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/internal/dataset"
)

func newDatasetCommand(g *globals) *cobra.Command {
	command := newGroupCommand("dataset", "Make the data that models are trained on",
		"Turn labelled captures into the directory of arrays that the trainer reads.",
		"  dpclass dataset build --captures captures -o dataset\n  dpclass dataset build --manifest corpus/manifest.csv -o dataset")
	command.AddCommand(newDatasetBuildCommand())
	return command
}

// datasetFlags are the flags of "dataset build".
type datasetFlags struct {
	captures, manifest, root, iscx, out string
	task                                string
	sets                                []string
	skipUnknown, checksums              bool
	perFlow                             int
}

func newDatasetBuildCommand() *cobra.Command {
	var flags datasetFlags
	command := &cobra.Command{
		Use:   "build --captures DIR | --manifest CSV | --iscx DIR -o DIR",
		Short: "Turn labelled captures into a directory of NumPy arrays",
		Long: `Turn labelled captures into a directory of memory-mappable NumPy arrays: one row
for each payload packet (packet, category, app, flow, capture, set, index, time,
length, l4_offset, payload_offset), and meta.json with the names.

The captures are those of a directory, labelled by where they are in it
(DIR/LABEL/any.pcap, DIR/LABEL.pcap); those of a manifest (a CSV file with the
columns path, category and app; set, vpn, capture and use where there are any);
or the files of the original UNB ISCX VPN-nonVPN 2016 release, by their names.

Labels of your own are as good as those that dpclass knows. With --captures,
"other" and "background" hold traffic that is to be of no label.`,
		Example: `  dpclass dataset build --captures captures -o dataset
  dpclass dataset build --captures captures --task app -o dataset
  dpclass dataset build --manifest corpus/manifest.csv -o dataset
  dpclass dataset build --manifest labels.csv --root /captures --set office -o dataset
  dpclass dataset build --iscx /data/ISCX-VPN-NonVPN-2016 -o iscx
  dpclass dataset build --manifest labels.csv --checksums --per-flow 0 -o all`,
		Args: exactly(),
		RunE: func(command *cobra.Command, _ []string) error { return buildDataset(command, &flags) },
	}
	set := command.Flags()
	set.StringVar(&flags.captures, "captures", "", "directory of captures: the first name below it is a capture's label")
	flags.task = dataset.TaskCategory
	set.Var(choice{&flags.task, []string{dataset.TaskCategory, dataset.TaskApp}}, "task", "with --captures: what the labels say")
	set.StringVar(&flags.manifest, "manifest", "", "CSV file that lists and labels the captures")
	set.StringVar(&flags.root, "root", "", "directory of the manifest's paths (default the manifest's own)")
	set.StringArrayVar(&flags.sets, "set", nil, "take only the manifest's rows of this set (may be given more than once)")
	set.StringVar(&flags.iscx, "iscx", "", "directory of the original ISCX VPN-nonVPN 2016 captures")
	set.BoolVar(&flags.skipUnknown, "skip-unknown", false, "with --iscx: leave out files whose names are not known")
	// -o is the format of the output everywhere else.
	set.StringVarP(&flags.out, "output", "o", "", "`directory` to write, new or empty")
	set.BoolVar(&flags.checksums, "checksums", false, "keep the checksums in the vectors")
	set.IntVar(&flags.perFlow, "per-flow", dataset.PerFlow, "payload packets kept of each flow, 0 for all")
	mustComplete(command, "task", dataset.TaskCategory, dataset.TaskApp)
	return command
}

func buildDataset(command *cobra.Command, flags *datasetFlags) error {
	sources := 0
	for _, source := range []string{flags.captures, flags.manifest, flags.iscx} {
		if source != "" {
			sources++
		}
	}
	switch {
	case flags.out == "":
		return usagef("dataset build: -o is missing; name the directory to write, as -o dataset")
	case sources != 1:
		return usagef("dataset build: want one of --captures DIR, --manifest CSV and --iscx DIR")
	case flags.manifest == "" && (flags.root != "" || len(flags.sets) > 0):
		return usagef("dataset build: --root and --set belong to --manifest")
	case flags.iscx == "" && flags.skipUnknown:
		return usagef("dataset build: --skip-unknown belongs to --iscx")
	case flags.captures == "" && command.Flags().Changed("task"):
		return usagef("dataset build: --task belongs to --captures; a manifest has a column for each task")
	case flags.perFlow < 0:
		return usagef("dataset build: --per-flow is %d, want 0 (all) or more", flags.perFlow)
	}
	stderr := command.ErrOrStderr()
	captures, err := datasetCaptures(flags, stderr)
	if err != nil {
		return err
	}
	began := time.Now()
	progress := newProgress(stderr, "captures", len(captures))
	meta, err := dataset.Build(command.Context(), flags.out, captures, dataset.BuildOptions{
		Source:    flags.captures + flags.manifest + flags.iscx, // one of them
		Checksums: flags.checksums,
		PerFlow:   flags.perFlow,
		Aggregation: dataset.Aggregation{
			Samples: classifier.DefaultSamples, Growth: classifier.DefaultGrowth, Floor: classifier.DefaultFloor,
		},
		Warn:     func(err error) { progress.note("dpclass: warning: %v", err) },
		Progress: func(captures, packets int) { progress.step(captures, fmt.Sprintf("%d packets", packets)) },
	})
	progress.done()
	if err != nil {
		return err
	}
	out := command.OutOrStdout()
	if flags.captures != "" {
		if err := printLabels(out, stderr, meta.Captures, flags.task); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%s: %d packets of %d flows in %d captures, %.1f s\n",
		flags.out, meta.Packets, meta.Flows, len(meta.Captures), time.Since(began).Seconds())
	return err
}

// fewFlows is the number of flows below which a label is said to have few.
const fewFlows = 20

// printLabels prints what there is of each label, and warns of those that a model
// can hardly learn.
func printLabels(out, warn io.Writer, captures []dataset.Capture, task string) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "LABEL\tCAPTURES\tFLOWS\tPACKETS\t")
	var labels []string
	counts := map[string][3]int{}
	for _, c := range captures { // by path, so that a label's stand together
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
			fmt.Fprintf(warn, "dpclass: warning: label %q has %d flows; a model needs two at least, and dozens to be any good\n", label, n)
		}
	}
	return nil
}

// datasetCaptures lists the captures that the flags name.
func datasetCaptures(flags *datasetFlags, stderr io.Writer) ([]dataset.Capture, error) {
	if flags.captures != "" {
		return dataset.ReadLabelled(flags.captures, flags.task)
	}
	if flags.iscx != "" {
		var skip func(string)
		if flags.skipUnknown {
			skip = func(path string) {
				fmt.Fprintf(stderr, "dpclass: warning: %q has no name of the ISCX release, left out\n", path)
			}
		}
		return dataset.ReadISCX(flags.iscx, skip)
	}
	captures, err := dataset.ReadManifest(flags.manifest, flags.root)
	if err != nil {
		return nil, err
	}
	if captures, err = dataset.OfSets(captures, flags.sets); err != nil {
		return nil, fmt.Errorf("manifest %q: %w", flags.manifest, err)
	}
	return captures, nil
}
