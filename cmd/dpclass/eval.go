// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/offline"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/tui"
)

// evalFlags are the flags of eval.
type evalFlags struct {
	manifest, root, task, level string
	sets, models                []string
	samples                     int
	includeVPN, system, dns     bool
	evidence                    string
	names                       nameFiles
}

func newEvalCommand(g *cli.Globals) *cobra.Command {
	var flags evalFlags
	command := &cobra.Command{
		Use:   "eval --manifest CSV --task category|app --level packet|flow",
		Short: "Measure a model on labelled captures",
		Long: `Measure a model on the captures of a manifest, a CSV file with the columns path,
category and app, and optionally set, vpn, capture and use.

It scores the captures whose label the model knows, and counts the others. With
--level flow, the prediction is the likeliest label after the flow's first payload
packets (as many as the model reads, without early stop); with --level packet, it is
the likeliest label of each payload packet. Flows or packets that the model would
reject as "unknown" are scored by their likeliest label too, and their share is
printed. Macro averages are over the labels in truth or prediction, as in
scikit-learn. --task app leaves out captures inside a VPN unless --include-vpn is
given.

The model is scored alone. With --system, flows are scored by the verdict that a user
sees: server name and protocol first, then the model. --evidence protocol leaves out
the names. The output says what decided how many flows.`,
		Example: `  dpclass eval --manifest corpus/manifest.csv --task category --level flow
  dpclass eval --manifest labels.csv --root /captures --set office --task app --level packet --model cnn-app -o json`,
		Args: cli.Exactly(),
		RunE: func(command *cobra.Command, _ []string) error { return eval(command, g, &flags) },
	}
	set := command.Flags()
	set.StringVar(&flags.manifest, "manifest", "", "CSV `FILE` that lists and labels the captures")
	set.StringVar(&flags.root, "root", "", "`DIR` that relative paths in the manifest start from (default: the manifest's own)")
	set.StringVar(&flags.task, "task", "", "`TASK` to score: category or app")
	set.StringVar(&flags.level, "level", "", "`LEVEL` to score: packet or flow")
	set.StringArrayVar(&flags.sets, "set", nil, "use only the manifest's rows of the set `NAME`; may be given more than once")
	set.StringArrayVar(&flags.models, "model", nil, "`NAME` of a shipped model, or FILE.onnx; give it twice for one model per task")
	addSamples(command, &flags.samples)
	set.BoolVar(&flags.system, "system", false, "score the verdict on all evidence, names and protocols first; needs --level flow")
	set.BoolVar(&flags.dns, "dns", false, dnsOfflineHelp)
	addEvidence(command, &flags.evidence)
	flags.names.flag(command)
	set.BoolVar(&flags.includeVPN, "include-vpn", false, "with --task app: score captures inside a VPN too")
	cli.Complete(command, "task", "category", "app")
	cli.Complete(command, "level", string(offline.ByPacket), string(offline.ByFlow))
	cli.CompleteFunc(command, "model", completeModels)
	return command
}

// evaluation checks the flags and returns what they ask for.
func (f *evalFlags) evaluation() (e offline.Evaluation, err error) {
	if f.manifest == "" {
		return e, cli.Usagef("--manifest is missing: name the CSV file that labels the captures")
	}
	e = offline.Evaluation{Level: offline.Level(f.level), IncludeVPN: f.includeVPN}
	if e.Task, err = flow.ParseTask(f.task); err != nil {
		return e, cli.Usagef("--task %q: want category or app", f.task)
	}
	if e.Level != offline.ByPacket && e.Level != offline.ByFlow {
		return e, cli.Usagef("--level %q: want packet or flow", f.level)
	}
	e.System = f.system
	switch {
	case f.system && e.Level != offline.ByFlow:
		return e, cli.Usagef("--system scores flows: use --level flow")
	case !f.system && (f.dns || f.evidence != string(classifier.EvidenceAll) || len(f.names) > 0):
		return e, cli.Usagef("--dns, --evidence and --names need --system: without it, the model is scored alone")
	}
	return e, nil
}

func eval(command *cobra.Command, g *cli.Globals, flags *evalFlags) error {
	e, err := flags.evaluation()
	if err != nil {
		return err
	}
	captures, err := readManifest(flags.manifest, flags.root, flags.sets)
	if err != nil {
		return err
	}
	reader, err := openModels(g, flags.models, &flags.names, classifier.Options{
		Samples: flags.samples, Evidence: classifier.Evidence(flags.evidence),
	})
	if err != nil {
		return err
	}
	defer reader.Close()
	reader.DNS = flags.dns
	progress := cli.NewProgress(command.ErrOrStderr(), "captures", len(captures))
	defer progress.Wipe()
	e.Progress = func(captures, scored int) { progress.Step(captures, fmt.Sprintf("%d scored", scored)) }
	e.Warn = func(err error) { progress.Note("dpclass: warning: %v", err) }
	skipped := skips{progress: progress, of: len(captures)}
	e.Skip = func(c dataset.Capture, err error) { skipped.add(c.File, err) }
	result, err := reader.Evaluate(command.Context(), captures, e)
	if err != nil {
		return errors.Join(fmt.Errorf("manifest %q: %w", flags.manifest, err), skipped.err())
	}
	progress.Wipe()
	if g.JSON() {
		err = cli.PrintJSON(command.OutOrStdout(), result)
	} else {
		err = printEval(command.OutOrStdout(), result)
	}
	return errors.Join(err, skipped.err())
}

// scoreRow is a row of the table of scores.
type scoreRow struct {
	dataset.Class
	support string
	style   tui.Style
}

func printEval(screen io.Writer, r *offline.Result) error {
	color := tui.WantColor(screen)
	out := bufio.NewWriter(screen)
	level := string(r.Level)
	judged := "model " + r.Model
	if r.System {
		judged = "names and protocols first, then " + judged
	}
	fmt.Fprintf(out, "%s by %s, %s: %s of %s\n\n", r.Task, level, judged, tui.Plural(r.N, level), tui.Plural(r.Captures, "capture"))
	var rows []scoreRow
	for _, c := range r.Classes {
		rows = append(rows, scoreRow{c, fmt.Sprint(c.Support), tui.Plain})
	}
	rows = append(rows,
		scoreRow{dataset.Class{Name: "macro average", Precision: r.MacroPrecision, Recall: r.MacroRecall, F1: r.MacroF1}, "", tui.Dim},
		scoreRow{dataset.Class{Name: "weighted average", Precision: r.WeightedPrecision, Recall: r.WeightedRecall, F1: r.WeightedF1}, fmt.Sprint(r.N), tui.Dim})
	figure := func(title string, of func(scoreRow) float64) tui.Column[scoreRow] {
		return tui.Column[scoreRow]{Title: title, Right: true, Cell: func(r scoreRow) tui.Cell { return tui.Cell{Text: fmt.Sprintf("%.3f", of(r))} }}
	}
	scores := tui.Table([]tui.Column[scoreRow]{
		{Title: "LABEL", Cell: func(r scoreRow) tui.Cell { return tui.Cell{Text: r.Name, Style: r.style} }},
		figure("PRECISION", func(r scoreRow) float64 { return r.Precision }),
		figure("RECALL", func(r scoreRow) float64 { return r.Recall }),
		figure("F1", func(r scoreRow) float64 { return r.F1 }),
		{Title: "SUPPORT", Right: true, Cell: func(r scoreRow) tui.Cell { return tui.Cell{Text: r.support} }},
	}, rows, color, 0)
	for _, line := range scores {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "\naccuracy %.3f; %.1f %% would be \"unknown\"\n\n", r.Accuracy, 100*r.UnknownShare)
	if r.System {
		for _, source := range slices.Sorted(maps.Keys(r.DecidedBy)) {
			by := r.DecidedBy[source]
			fmt.Fprintf(out, "decided by %-9s %6d flows, %.3f right\n", cmp.Or(source, "nothing")+":", by.N, float64(by.Right)/float64(by.N))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "Confusion (row: truth, column: prediction)")
	for _, line := range confusion(r, color) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "\n%s", tui.Printable(r.LeftOut.Describe(r.Level)))
	if n := r.LeftOut.FlowsWithoutPayload; n > 0 {
		fmt.Fprintf(out, "; %s without payload", tui.Plural(n, "flow"))
	}
	fmt.Fprintln(out)
	return out.Flush()
}

// confusion returns the lines of the confusion matrix. Its rows are indexes of classes.
func confusion(r *offline.Result, color bool) []string {
	columns := []tui.Column[int]{{Cell: func(i int) tui.Cell { return tui.Cell{Text: fmt.Sprintf("%d %s", i+1, r.Classes[i].Name)} }}}
	var rows []int
	for j := range r.Classes {
		rows = append(rows, j)
		columns = append(columns, tui.Column[int]{Title: fmt.Sprint(j + 1), Right: true, Cell: func(i int) tui.Cell {
			cell := tui.Cell{Text: fmt.Sprint(r.Confusion[i][j])}
			switch {
			case r.Confusion[i][j] == 0:
				cell.Style = tui.Dim
			case i == j:
				cell.Style = tui.Green
			}
			return cell
		}})
	}
	return tui.Table(columns, rows, color, 0)
}
