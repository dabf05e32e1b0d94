// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/dataset"
)

// evalFlags are the flags of eval.
type evalFlags struct {
	manifest, root, task, level string
	sets, models                []string
	samples                     int
	includeVPN                  bool
}

func newEvalCommand(g *globals) *cobra.Command {
	var flags evalFlags
	command := &cobra.Command{
		Use:   "eval --manifest CSV --task category|app --level packet|flow",
		Short: "Measure a model on labelled captures",
		Long: `Measure a model on the captures of a manifest (a CSV file with the columns path,
category and app; set, vpn, capture and use where there are any).

Scored are the rows whose label is one of the model's; what is left out is
counted. A flow gets the likeliest label over its first payload packets (the
model's budget, no early stop); with --level packet every payload packet is
scored for itself. What the model would reject as "unknown" is scored by its
likeliest label too; the share of it is a figure of its own. Macro averages run over the
labels in truth or prediction, as scikit-learn's. --task app takes rows outside a
VPN only, unless --include-vpn is given.`,
		Example: `  dpclass eval --manifest corpus/manifest.csv --task category --level flow
  dpclass eval --manifest labels.csv --root /captures --set office --task app --level packet --model cnn-app -o json`,
		Args: exactly(),
		RunE: func(command *cobra.Command, _ []string) error { return eval(command, g, &flags) },
	}
	set := command.Flags()
	set.StringVar(&flags.manifest, "manifest", "", "CSV file that lists and labels the captures")
	set.StringVar(&flags.root, "root", "", "directory of the manifest's paths (default the manifest's own)")
	set.StringVar(&flags.task, "task", "", "category or app")
	set.StringVar(&flags.level, "level", "", "packet or flow")
	set.StringArrayVar(&flags.sets, "set", nil, "take only the manifest's rows of this set (may be given more than once)")
	set.StringArrayVar(&flags.models, "model", nil, "`NAME|FILE` of the model (twice: one for each task)")
	set.IntVar(&flags.samples, "samples", 0, "payload packets of a flow that are looked at (default: the model's)")
	set.BoolVar(&flags.includeVPN, "include-vpn", false, "with --task app: take rows inside a VPN too")
	mustComplete(command, "task", "category", "app")
	mustComplete(command, "level", "packet", "flow")
	mustCompleteFunc(command, "model", completeModels)
	return command
}

// evalResult is what eval prints.
type evalResult struct {
	Task         string   `json:"task"`
	Level        string   `json:"level"`
	Model        string   `json:"model"`
	Sets         []string `json:"sets"`
	Samples      int      `json:"samples"` // budget of a flow; 0 with --level packet
	Captures     int      `json:"captures"`
	UnknownShare float64  `json:"unknown_share"`
	LeftOut      leftOut  `json:"left_out"`
	dataset.Scores
}

// leftOut counts what is not scored.
type leftOut struct {
	Captures int `json:"captures"`
	N        int `json:"n"` // flows or packets of those captures
	// Labels counts the left-out captures by their label; "vpn" are those inside a
	// VPN that --task app leaves out.
	Labels map[string]int `json:"labels"`
	// FlowsWithoutPayload are flows of scored captures with no packet to decide on.
	FlowsWithoutPayload int `json:"flows_without_payload"`
}

func (f *evalFlags) check() error {
	switch {
	case f.manifest == "":
		return usagef("eval: --manifest is missing; name the CSV file that labels the captures")
	case f.task != "category" && f.task != "app":
		return usagef("eval: --task is %q, want category or app", f.task)
	case f.level != "packet" && f.level != "flow":
		return usagef("eval: --level is %q, want packet or flow", f.level)
	}
	return nil
}

func eval(command *cobra.Command, g *globals, flags *evalFlags) error {
	if err := flags.check(); err != nil {
		return err
	}
	captures, err := dataset.ReadManifest(flags.manifest, flags.root)
	if err != nil {
		return err
	}
	if captures, err = dataset.OfSets(captures, flags.sets); err != nil {
		return fmt.Errorf("manifest %q: %w", flags.manifest, err)
	}
	o, err := newOffline(g, flags.models, classifier.Options{Samples: flags.samples})
	if err != nil {
		return err
	}
	defer o.Close()
	task, err := flow.ParseTask(flags.task)
	if err != nil {
		return usageError{err}
	}
	if o.classifier.Labels(task) == nil {
		return fmt.Errorf("model %q has no task %s; name one with --model that has (dpclass models list)", o.classifier.Models()[0].Name, task)
	}
	e := newEvaluation(o, flags, task)
	progress := newProgress(command.ErrOrStderr(), "captures", len(captures))
	defer progress.done()
	for i, from := range captures {
		o.tick = func(int) { progress.step(i, fmt.Sprintf("%d scored", e.scored)) }
		warning, err := e.capture(command, from)
		if err != nil {
			return err
		}
		if warning != nil {
			progress.note("dpclass: warning: %v", warning)
		}
	}
	progress.done()
	result := e.result()
	if result.N == 0 {
		return fmt.Errorf("manifest %q: nothing to score in %d captures: no label of them is one of the model's\n%s; the model has %s",
			flags.manifest, len(captures), result.LeftOut.text(flags.level), strings.Join(e.labels, ", "))
	}
	if g.json() {
		return json.NewEncoder(command.OutOrStdout()).Encode(result)
	}
	return printEval(command.OutOrStdout(), result)
}

// evaluation scores captures.
type evaluation struct {
	offline *offline
	flags   *evalFlags
	task    flow.Task
	labels  []string
	table   *dataset.Confusion
	scored  int
	unknown int
	out     evalResult
}

func newEvaluation(o *offline, flags *evalFlags, task flow.Task) *evaluation {
	e := &evaluation{offline: o, flags: flags, task: task, labels: o.classifier.Labels(task)}
	e.table = dataset.NewConfusion(e.labels)
	e.out = evalResult{Task: flags.task, Level: flags.level, Sets: []string{}, LeftOut: leftOut{Labels: map[string]int{}}}
	for _, m := range o.classifier.Models() {
		if m.Has(task) {
			e.out.Model = m.Name
		}
	}
	if flags.level == "flow" {
		o.perFlow = o.classifier.Samples()
		e.out.Samples = o.perFlow
	}
	return e
}

// capture scores one capture, or counts it as left out.
func (e *evaluation) capture(command *cobra.Command, from dataset.Capture) (warning, err error) {
	label := from.Category
	if e.task == flow.App {
		label = from.App
	}
	truth := slices.Index(e.labels, label)
	inVPN := e.task == flow.App && from.VPN && !e.flags.includeVPN
	if truth < 0 || inVPN {
		if inVPN {
			label = "vpn"
		}
		e.out.LeftOut.Captures++
		e.out.LeftOut.Labels[label]++
		n, err := e.count(command, from)
		e.out.LeftOut.N += n
		return nil, err
	}

	rows := map[*dataset.Flow][][]float32{}
	e.offline.each = func(f *dataset.Flow, one classifier.Probabilities) {
		if e.flags.level == "packet" {
			e.score(truth, one[e.task])
			return
		}
		rows[f] = append(rows[f], one[e.task]...)
	}
	file, err := e.offline.run(command.Context(), from.File)
	if err != nil {
		return nil, err
	}
	for _, f := range file.flows {
		if f.Payloads == 0 {
			e.out.LeftOut.FlowsWithoutPayload++
		} else if e.flags.level == "flow" {
			e.score(truth, rows[f])
		}
	}
	e.out.Captures++
	if !slices.Contains(e.out.Sets, from.Set) {
		e.out.Sets = append(e.out.Sets, from.Set)
	}
	return file.warning, nil
}

// score counts one flow or packet.
func (e *evaluation) score(truth int, rows [][]float32) {
	predicted, confidence := e.offline.classifier.Likeliest(e.task, rows)
	e.table.Add(truth, predicted)
	e.scored++
	if e.offline.classifier.Rejects(e.task, confidence) {
		e.unknown++
	}
}

// count returns how many flows or packets a capture would have had.
func (e *evaluation) count(command *cobra.Command, from dataset.Capture) (int, error) {
	flows, packets, err := dataset.Count(command.Context(), from.File)
	if command.Context().Err() != nil {
		return 0, errInterrupted
	}
	if e.flags.level == "packet" {
		return packets, err
	}
	return flows, err
}

func (e *evaluation) result() *evalResult {
	e.out.Scores = e.table.Scores()
	if e.scored > 0 {
		e.out.UnknownShare = float64(e.unknown) / float64(e.scored)
	}
	return &e.out
}

// text says in a line what is left out.
func (l *leftOut) text(level string) string {
	if l.Captures == 0 {
		return "nothing is left out"
	}
	var names []string
	for name := range l.Labels {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if l.Labels[a] != l.Labels[b] {
			return l.Labels[b] - l.Labels[a]
		}
		return strings.Compare(a, b)
	})
	const most = 8
	var parts []string
	for _, name := range names[:min(len(names), most)] {
		shown := name
		if shown == "" {
			shown = "(none)"
		}
		parts = append(parts, fmt.Sprintf("%s %d", shown, l.Labels[name]))
	}
	if len(names) > most {
		parts = append(parts, fmt.Sprintf("%d labels more", len(names)-most))
	}
	return fmt.Sprintf("left out: %s of %s (%s)", plural(l.N, level), plural(l.Captures, "capture"), strings.Join(parts, ", "))
}

func printEval(screen io.Writer, r *evalResult) error {
	color := wantColor(screen)
	out := bufio.NewWriter(screen)
	fmt.Fprintf(out, "%s by %s, model %s: %s of %s\n\n", r.Task, r.Level, r.Model, plural(r.N, r.Level), plural(r.Captures, "capture"))
	figure := func(value float64) cell { return cell{fmt.Sprintf("%.3f", value), plain} }
	cells := [][]cell{{{"LABEL", bold}, {"PRECISION", bold}, {"RECALL", bold}, {"F1", bold}, {"SUPPORT", bold}}}
	for _, c := range r.Classes {
		cells = append(cells, []cell{{c.Name, plain}, figure(c.Precision), figure(c.Recall), figure(c.F1), {fmt.Sprint(c.Support), plain}})
	}
	cells = append(cells,
		[]cell{{"macro average", dim}, figure(r.MacroPrecision), figure(r.MacroRecall), figure(r.MacroF1), {"", plain}},
		[]cell{{"weighted average", dim}, figure(r.WeightedPrecision), figure(r.WeightedRecall), figure(r.WeightedF1), {fmt.Sprint(r.N), plain}},
	)
	for _, line := range align(cells, []bool{false, true, true, true, true}, color, 0) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "\naccuracy %.3f; %.1f %% would be \"unknown\"\n\n", r.Accuracy, 100*r.UnknownShare)

	fmt.Fprintln(out, "Confusion (row: truth, column: prediction)")
	header, rights := []cell{{"", plain}}, []bool{false}
	for i := range r.Classes {
		header, rights = append(header, cell{fmt.Sprint(i + 1), bold}), append(rights, true)
	}
	cells = [][]cell{header}
	for i, counts := range r.Confusion {
		line := []cell{{fmt.Sprintf("%d %s", i+1, r.Classes[i].Name), plain}}
		for j, n := range counts {
			look := plain
			switch {
			case n == 0:
				look = dim
			case i == j:
				look = green
			}
			line = append(line, cell{fmt.Sprint(n), look})
		}
		cells = append(cells, line)
	}
	for _, line := range align(cells, rights, color, 0) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "\n%s", r.LeftOut.text(r.Level))
	if n := r.LeftOut.FlowsWithoutPayload; n > 0 {
		fmt.Fprintf(out, "; %s without payload", plural(n, "flow"))
	}
	fmt.Fprintln(out)
	return out.Flush()
}
