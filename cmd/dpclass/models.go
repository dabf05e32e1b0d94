// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab/bench"
)

// newModelsCommand returns `dpclass models` with its verbs.
func newModelsCommand(g *globals) *cobra.Command {
	models := &cobra.Command{
		Use:   "models",
		Short: "List, show, verify and choose the models",
		Long: `The models are the neural networks that flows are classified with. Some are
shipped with the program; your own is a FILE.onnx with its manifest FILE.json
beside it.`,
		Example: `  dpclass models list
  dpclass models show cnn-traffic
  dpclass models verify ./mine.onnx
  dpclass models use cnn-app cnn-traffic`,
		Args: noVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	models.AddCommand(newModelsListCommand(g), newModelsShowCommand(g), newModelsVerifyCommand(g), newModelsUseCommand(g))
	return models
}

// completeModels completes the names of the shipped models, beside files.
func completeModels(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, name := range model.Shipped() {
		if !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveDefault
}

// modelLine is a model as `models list -o json` and `models verify -o json`
// print it.
type modelLine struct {
	Name       string      `json:"name"`
	File       string      `json:"file"` // "" for the default, which is built in
	InUse      bool        `json:"in_use"`
	Task       []flow.Task `json:"task"`
	Categories int         `json:"categories"`
	Apps       int         `json:"apps"`
	Precision  string      `json:"precision"`
	Parameters int64       `json:"parameters"`
	MAC        int64       `json:"mac"`
	Bytes      int         `json:"bytes"`
	SHA256     string      `json:"sha256"`
	// Accuracy is by flow, by split and task, as the model's manifest has it.
	Accuracy map[string]map[flow.Task]float64 `json:"accuracy,omitempty"`
	// Speed is of one core, at batch 32; see Speedometer for where it comes from.
	Speed       float64 `json:"packets_per_s_core,omitempty"`
	Speedometer string  `json:"packets_per_s_core_measured,omitempty"` // export: by whoever made the model; here: just now
	Runtime     string  `json:"onnxruntime,omitempty"`                 // release that ran it; verify only
}

func makeModelLine(m *model.Model, inUse bool) modelLine {
	line := modelLine{
		Name: m.Name, File: m.Path, InUse: inUse, Task: m.Task,
		Categories: len(m.Labels[flow.Category]), Apps: len(m.Labels[flow.App]),
		Precision: m.Precision, Parameters: m.Parameters, MAC: m.MAC, Bytes: m.Size(), SHA256: m.SHA256,
	}
	card := readCard(m.Figures)
	for _, part := range card.parts {
		for task, s := range part.scores {
			if s.Flow == nil {
				continue
			}
			if line.Accuracy == nil {
				line.Accuracy = map[string]map[flow.Task]float64{}
			}
			if line.Accuracy[part.name] == nil {
				line.Accuracy[part.name] = map[flow.Task]float64{}
			}
			line.Accuracy[part.name][task] = s.Flow.Accuracy.mean
		}
	}
	if card.micros > 0 {
		line.Speed, line.Speedometer = 1e6/card.micros, "export"
	}
	return line
}

func newModelsListCommand(g *globals) *cobra.Command {
	var speed bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List the models that are found and the one in use",
		Long: `List the default model, those installed with the program, and those that
'dpclass models use' chose. "*" marks what attach, classify and eval use where
--model is not given.

FLOW SPLIT and CAPTURE SPLIT are the accuracy by flow, category+app, on flows and on
captures that the model had not seen (docs/evaluation.md); a model of your own has
that of the flows that its training kept out, marked "v". PACKETS/S is of one core,
at batch 32, as measured when the model was exported; --speed measures it here.`,
		Example: `  dpclass models list
  dpclass models list --speed
  dpclass models list -o json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listModels(cmd.OutOrStdout(), cmd.ErrOrStderr(), g, speed)
		},
	}
	list.Flags().BoolVar(&speed, "speed", false, "measure the models' speed on this machine (two seconds each)")
	return list
}

func listModels(out, warn io.Writer, g *globals, speed bool) error {
	choice, err := cli.ChosenModels()
	if err != nil {
		return err
	}
	chosen := choice.Models
	if len(chosen) == 0 {
		chosen = []string{model.Default}
	}
	names := model.Shipped()
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var lines []modelLine
	var failed error
	for _, name := range names {
		m, err := model.Load(name)
		if err != nil {
			// The others can still be listed.
			failed = errors.Join(failed, err)
			continue
		}
		lines = append(lines, makeModelLine(m, slices.Contains(chosen, name)))
		if speed {
			line := &lines[len(lines)-1]
			err := bench.Classifier(bench.ClassifierOptions{Library: g.onnxruntime, Models: []string{name}, Batches: []int{32}},
				func(r bench.ClassifierResult) error {
					line.Speed, line.Speedometer = r.PerSecond, "here"
					return nil
				})
			if err != nil {
				return err
			}
		}
	}
	if g.json() {
		encoder := json.NewEncoder(out)
		for _, line := range lines {
			if err := encoder.Encode(line); err != nil {
				return err
			}
		}
		return failed
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tNAME\tTASKS\tLABELS\tFLOW SPLIT\tCAPTURE SPLIT\tPACKETS/S\tPRECISION\tSIZE\tSHA256\tFILE")
	for _, line := range lines {
		mark := ""
		if line.InUse {
			mark = "*"
		}
		file := line.File
		if file == "" {
			file = "(built in)"
		}
		perSecond := "-"
		if line.Speed > 0 {
			perSecond = fmt.Sprintf("%.0f", line.Speed)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, line.Name, taskNames(line.Task), labelCounts(line),
			accuracyText(line, flowSplit, validation), accuracyText(line, captureSplit, ""), perSecond,
			line.Precision, sizeText(line.Bytes), line.SHA256[:12], file)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if choice.File != "" {
		fmt.Fprintf(warn, "* chosen in %s; 'dpclass models use --reset' takes it back\n", choice.File)
	}
	return failed
}

// accuracyText is the accuracy by flow of a split, task by task, or of the other
// split with a mark where there is none.
func accuracyText(line modelLine, split, other string) string {
	scores, mark := line.Accuracy[split], ""
	if scores == nil && line.File != "" {
		scores, mark = line.Accuracy[other], " v"
	}
	if scores == nil {
		return "-"
	}
	var texts []string
	for _, task := range line.Task {
		text := "-"
		if accuracy, ok := scores[task]; ok {
			text = fmt.Sprintf("%.2f", accuracy)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "+") + mark
}

func taskNames(tasks []flow.Task) string {
	names := make([]string, 0, len(tasks))
	for _, task := range tasks {
		names = append(names, task.String())
	}
	return strings.Join(names, "+")
}

func labelCounts(line modelLine) string {
	var counts []string
	for _, n := range []int{line.Categories, line.Apps} {
		if n > 0 {
			counts = append(counts, fmt.Sprint(n))
		}
	}
	return strings.Join(counts, "+")
}

func sizeText(bytes int) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%.0f kB", float64(bytes)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

func newModelsShowCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME|FILE",
		Short: "Show what a model is, what it was trained on and where it is weak",
		Long: `Show a model's manifest: tasks and labels, training data, figures as they were
measured on each split, known weaknesses, licence. -o json prints the manifest as
one object.`,
		Example: `  dpclass models show default
  dpclass models show ./mine.onnx -o json`,
		Args:              oneModel,
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := model.Load(args[0])
			if err != nil {
				return err
			}
			if g.json() {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(m.Manifest)
			}
			return showModel(cmd.OutOrStdout(), m)
		},
	}
}

// oneModel is the argument check of verbs that take one model.
func oneModel(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("want one model, a name (%s) or a FILE.onnx; got %d arguments", strings.Join(model.Shipped(), ", "), len(args))
	}
	return nil
}

func showModel(out io.Writer, m *model.Model) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	row("name", m.Name)
	if m.Path == "" {
		row("file", "(built in)")
	} else {
		row("file", m.Path)
	}
	row("architecture", m.Architecture)
	row("size", fmt.Sprintf("%d parameters, %.2f MMAC a packet, %s, %s", m.Parameters, float64(m.MAC)/1e6, m.Precision, sizeText(m.Size())))
	for _, task := range m.Task {
		row(task.String(), strings.Join(m.Labels[task], " "))
		unknown := fmt.Sprintf("unknown below %.3g", m.UnknownThreshold[task])
		if m.UnknownThreshold[task] == 0 {
			unknown = "never unknown"
		}
		row("", "")
		row("  verdict", fmt.Sprintf("temperature %.3g, final from %.3g or after %d samples, %s", m.Temperature[task], m.FinalConfidence, m.Samples, unknown))
	}
	row("data", fmt.Sprintf("%d packets of %d flows, seed %d", m.Training.Packets, m.Training.Flows, m.Training.Seed))
	row("  split", m.Training.Split)
	for _, set := range m.Training.Data {
		row("  "+set.Set, strings.TrimSuffix(set.Source+"; "+set.Licence, "; "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := showFigures(out, readCard(m.Figures)); err != nil {
		return err
	}
	if len(m.Weaknesses) > 0 {
		fmt.Fprintln(out, "\nweaknesses")
		for _, weakness := range m.Weaknesses {
			fmt.Fprintf(out, "- %s\n", wrap(weakness, "  "))
		}
	}
	_, err := fmt.Fprintf(out, "\nlicence  %s\nsha256   %s\n", m.Licence, m.SHA256)
	return err
}

func newModelsVerifyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME|FILE]...",
		Short: "Check hash, versions, shapes and labels of models, and run them",
		Long: `Check models against their manifests: the sha256 of the file, format and vector
version, shapes and types of input and outputs, labels. Then each is opened in
ONNX Runtime and run once. Without arguments all models that are found are checked.`,
		Example: `  dpclass models verify
  dpclass models verify ./mine.onnx`,
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = model.Shipped()
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			for _, name := range args {
				m, version, err := verifyModel(name, g.onnxruntime)
				if err != nil {
					return err
				}
				if g.json() {
					line := makeModelLine(m, false)
					line.Runtime = version
					err = encoder.Encode(line)
				} else {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (sha256 %s…, %s, ran in ONNX Runtime %s)\n", name, m.SHA256[:12], taskNames(m.Task), version)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// loadModels reads the models named on the command line, else the chosen ones.
func loadModels(named []string) ([]*model.Model, error) {
	names, err := cli.ModelsOr(named)
	if err != nil {
		return nil, err
	}
	return model.LoadAll(names)
}

// verifyModel checks a model and runs it; it returns ONNX Runtime's release.
func verifyModel(nameOrFile, library string) (*model.Model, string, error) {
	m, err := model.Load(nameOrFile)
	if err != nil {
		return nil, "", err
	}
	c, err := classifier.New(classifier.Options{Library: library, Models: []*model.Model{m}, Workers: 1})
	if err != nil {
		return nil, "", err
	}
	if err := c.Close(); err != nil {
		return nil, "", err
	}
	version, err := ort.Version(library)
	return m, version, err
}

func newModelsUseCommand(g *globals) *cobra.Command {
	var reset bool
	use := &cobra.Command{
		Use:   "use NAME|FILE... | --reset",
		Short: "Choose the models that are used where --model is not given",
		Long: `Choose one model, or two with one task each, for every later attach, classify and
eval without --model. The models are verified first. Root's choice is kept in
/etc/dpclass/model and holds for everybody; another user's is kept in
$XDG_CONFIG_HOME/dpclass/model (~/.config/dpclass/model) and comes first for him.
An agent that was started without --model takes the choice up at SIGHUP: flows
without a final verdict are sampled anew, final verdicts stay.`,
		Example: `  sudo dpclass models use cnn-app cnn-traffic
  dpclass models use ./mine.onnx
  dpclass models use --reset`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case reset && len(args) > 0:
				return usagef("--reset takes no model, got %q", args[0])
			case !reset && len(args) == 0:
				return usagef("want a model, a name (%s) or a FILE.onnx, or --reset", strings.Join(model.Shipped(), ", "))
			}
			return nil
		},
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if reset {
				file, err := cli.ResetModels()
				if err != nil {
					return err
				}
				if file == "" {
					_, err = fmt.Fprintln(out, "no model was chosen")
				} else {
					_, err = fmt.Fprintf(out, "removed %s\n", file)
				}
				return err
			}
			chosen := make([]*model.Model, 0, len(args))
			lines := slices.Clone(args)
			for i, name := range args {
				m, _, err := verifyModel(name, g.onnxruntime)
				if err != nil {
					return err
				}
				chosen = append(chosen, m)
				if model.IsFile(name) {
					if lines[i], err = filepath.Abs(name); err != nil {
						return err
					}
				}
			}
			if err := model.CheckTasks(chosen); err != nil {
				return err
			}
			file, err := cli.ChooseModels(lines)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s will be used where --model is not given (%s)\n"+
				"running agents that were started without --model take it up at SIGHUP\n", baseNames(args), file)
			return err
		},
	}
	use.Flags().BoolVar(&reset, "reset", false, "take the choice back: the shipped default")
	return use
}

func baseNames(names []string) string {
	short := make([]string, 0, len(names))
	for _, name := range names {
		short = append(short, filepath.Base(name))
	}
	return strings.Join(short, ", ")
}
