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
)

// newModelsCommand returns `dpclass models` with its verbs.
func newModelsCommand(g *globals) *cobra.Command {
	models := &cobra.Command{
		Use:   "models",
		Short: "List, show, verify and choose the models",
		Long: `The models are the neural networks that flows are classified with. Some are
shipped in the program; your own is a FILE.onnx with its manifest FILE.json
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
	for _, name := range classifier.Shipped() {
		if !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveDefault
}

// modelLine is a model as `models list -o json` and `models verify -o json`
// print it.
type modelLine struct {
	Name       string            `json:"name"`
	File       string            `json:"file"` // "" where the model is shipped
	InUse      bool              `json:"in_use"`
	Task       []classifier.Task `json:"task"`
	Categories int               `json:"categories"`
	Apps       int               `json:"apps"`
	Precision  string            `json:"precision"`
	Parameters int64             `json:"parameters"`
	MAC        int64             `json:"mac"`
	Bytes      int               `json:"bytes"`
	SHA256     string            `json:"sha256"`
	Runtime    string            `json:"onnxruntime,omitempty"` // release that ran it; verify only
}

func makeModelLine(m *classifier.Model, inUse bool) modelLine {
	return modelLine{
		Name: m.Name, File: m.Path, InUse: inUse, Task: m.Task,
		Categories: len(m.Labels[classifier.Category]), Apps: len(m.Labels[classifier.App]),
		Precision: m.Precision, Parameters: m.Parameters, MAC: m.MAC, Bytes: m.Size(), SHA256: m.SHA256,
	}
}

func newModelsListCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the shipped models and the one in use",
		Long: `List the shipped models, and those that 'dpclass models use' chose. "*" marks
what attach, classify and eval use where --model is not given.`,
		Example: `  dpclass models list
  dpclass models list -o json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listModels(cmd.OutOrStdout(), cmd.ErrOrStderr(), g.json())
		},
	}
}

func listModels(out, warn io.Writer, asJSON bool) error {
	choice, err := classifier.Chosen()
	if err != nil {
		return err
	}
	chosen := choice.Models
	if len(chosen) == 0 {
		chosen = []string{classifier.DefaultModel}
	}
	names := classifier.Shipped()
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var lines []modelLine
	var failed error
	for _, name := range names {
		m, err := classifier.LoadModel(name)
		if err != nil {
			// The others can still be listed.
			failed = errors.Join(failed, err)
			continue
		}
		lines = append(lines, makeModelLine(m, slices.Contains(chosen, name)))
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		for _, line := range lines {
			if err := encoder.Encode(line); err != nil {
				return err
			}
		}
		return failed
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tNAME\tTASKS\tLABELS\tPRECISION\tMMAC\tSIZE\tFILE")
	for _, line := range lines {
		mark := ""
		if line.InUse {
			mark = "*"
		}
		file := line.File
		if file == "" {
			file = "(shipped)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.2f\t%s\t%s\n", mark, line.Name, taskNames(line.Task), labelCounts(line), line.Precision,
			float64(line.MAC)/1e6, sizeText(line.Bytes), file)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if choice.File != "" {
		fmt.Fprintf(warn, "* chosen in %s; 'dpclass models use --reset' takes it back\n", choice.File)
	}
	return failed
}

func taskNames(tasks []classifier.Task) string {
	names := make([]string, 0, len(tasks))
	for _, task := range tasks {
		names = append(names, string(task))
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
measured, known weaknesses, licence. -o json prints the manifest as one object.`,
		Example: `  dpclass models show default
  dpclass models show ./mine.onnx -o json`,
		Args:              oneModel,
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := classifier.LoadModel(args[0])
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
		return usagef("want one model, a name (%s) or a FILE.onnx; got %d arguments", strings.Join(classifier.Shipped(), ", "), len(args))
	}
	return nil
}

func showModel(out io.Writer, m *classifier.Model) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	row("name", m.Name)
	if m.Path == "" {
		row("file", "(shipped)")
	} else {
		row("file", m.Path)
	}
	row("architecture", m.Architecture)
	row("size", fmt.Sprintf("%d parameters, %.2f MMAC a packet, %s, %s", m.Parameters, float64(m.MAC)/1e6, m.Precision, sizeText(m.Size())))
	for _, task := range m.Task {
		row(string(task), strings.Join(m.Labels[task], " "))
		unknown := fmt.Sprintf("unknown below %.3g", m.UnknownThreshold[task])
		if m.UnknownThreshold[task] == 0 {
			unknown = "never unknown"
		}
		row("", "")
		row("  verdict", fmt.Sprintf("temperature %.3g, final from %.3g or after %d samples, %s", m.Temperature[task], m.FinalConfidence, m.Samples, unknown))
	}
	row("training", fmt.Sprintf("%d packets of %d flows, seed %d", m.Training.Packets, m.Training.Flows, m.Training.Seed))
	row("  split", m.Training.Split)
	for _, set := range m.Training.Data {
		row("  "+set.Set, strings.TrimSuffix(set.Source+"; "+set.Licence, "; "))
	}
	if figures := flatFigures(m.Figures); len(figures) > 0 {
		row("figures", figures[0])
		for _, figure := range figures[1:] {
			row(" ", figure)
		}
	}
	for i, weakness := range m.Weaknesses {
		if i == 0 {
			row("weaknesses", weakness)
		} else {
			row(" ", weakness)
		}
	}
	row("licence", m.Licence)
	row("sha256", m.SHA256)
	return table.Flush()
}

// flatFigures turns the manifest's figures, which have a form of their own for
// each model, into lines "a.b.c 0.81".
func flatFigures(raw json.RawMessage) []string {
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var tree any
	if decoder.Decode(&tree) != nil {
		return nil
	}
	var lines []string
	var walk func(path string, node any)
	walk = func(path string, node any) {
		switch node := node.(type) {
		case map[string]any:
			keys := make([]string, 0, len(node))
			for key := range node {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			for _, key := range keys {
				walk(strings.TrimPrefix(path+"."+key, "."), node[key])
			}
		case []any:
			parts := make([]string, 0, len(node))
			for _, part := range node {
				parts = append(parts, fmt.Sprint(part))
			}
			lines = append(lines, path+" "+strings.Join(parts, " "))
		default:
			lines = append(lines, fmt.Sprintf("%s %v", path, node))
		}
	}
	walk("", tree)
	return lines
}

func newModelsVerifyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [NAME|FILE]...",
		Short: "Check hash, versions, shapes and labels of models, and run them",
		Long: `Check models against their manifests: the sha256 of the file, format and vector
version, shapes and types of input and outputs, labels. Then each is opened in
ONNX Runtime and run once. Without arguments all shipped models are checked.`,
		Example: `  dpclass models verify
  dpclass models verify ./mine.onnx`,
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = classifier.Shipped()
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

// verifyModel checks a model and runs it; it returns ONNX Runtime's release.
func verifyModel(nameOrFile, library string) (*classifier.Model, string, error) {
	m, err := classifier.LoadModel(nameOrFile)
	if err != nil {
		return nil, "", err
	}
	c, err := classifier.New(classifier.Options{Library: library, Models: []*classifier.Model{m}, Workers: 1})
	if err != nil {
		return nil, "", err
	}
	if err := c.Close(); err != nil {
		return nil, "", err
	}
	version, err := classifier.LibraryVersion(library)
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
				return usagef("want a model, a name (%s) or a FILE.onnx, or --reset", strings.Join(classifier.Shipped(), ", "))
			}
			return nil
		},
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if reset {
				file, err := classifier.ResetChoice()
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
			for _, name := range args {
				if _, _, err := verifyModel(name, g.onnxruntime); err != nil {
					return err
				}
			}
			file, err := classifier.Choose(args)
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
