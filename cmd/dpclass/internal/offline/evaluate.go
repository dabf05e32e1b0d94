// SPDX-License-Identifier: Apache-2.0

package offline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/tui"
)

// Level is what an evaluation scores.
type Level string

// The levels: each payload packet by itself, or each flow by its first samples.
const (
	ByPacket Level = "packet"
	ByFlow   Level = "flow"
)

// Evaluation says what Evaluate scores.
type Evaluation struct {
	Task       flow.Task
	Level      Level
	IncludeVPN bool // with the task app: score captures inside a VPN too
	// System scores the verdict on all evidence, names and protocols first. Otherwise the
	// networks are scored alone.
	System bool
	// Progress gets the number of captures done and of packets or flows scored; may be nil.
	Progress func(captures, scored int)
	Warn     func(error) // gets what is wrong with a capture that is used all the same; may be nil
	// Skip gets each capture that cannot be read, and why; may be nil.
	Skip func(dataset.Capture, error)
}

// Result is the outcome of an evaluation, and the JSON of "dpclass eval -o json".
type Result struct {
	Task         flow.Task `json:"task"`
	Level        Level     `json:"level"`
	System       bool      `json:"system"`
	Model        string    `json:"model"`
	Sets         []string  `json:"sets"`
	Samples      int       `json:"samples"` // budget of a flow; 0 at packet level
	Captures     int       `json:"captures"`
	UnknownShare float64   `json:"unknown_share"`
	// DecidedBy counts the scored flows by what decided them; only with System.
	DecidedBy map[string]DecidedBy `json:"decided_by,omitempty"`
	LeftOut   LeftOut              `json:"left_out"`
	Skipped   []string             `json:"skipped,omitempty"` // captures that cannot be read
	dataset.Scores
}

// DecidedBy counts flows, and those among them that were decided right.
type DecidedBy struct {
	N     int `json:"n"`
	Right int `json:"right"`
}

// LeftOut counts what an evaluation does not score.
type LeftOut struct {
	Captures int `json:"captures"`
	N        int `json:"n"` // flows or packets of those captures
	// Labels counts the left-out captures by label; "vpn" counts captures inside a VPN
	// that the task app leaves out.
	Labels map[string]int `json:"labels"`
	// FlowsWithoutPayload counts flows of scored captures without a payload packet.
	FlowsWithoutPayload int `json:"flows_without_payload"`
}

// Describe says in one line what is left out.
func (l *LeftOut) Describe(level Level) string {
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
			shown = "(no label)"
		}
		parts = append(parts, fmt.Sprintf("%s %d", shown, l.Labels[name]))
	}
	if len(names) > most {
		parts = append(parts, fmt.Sprintf("%d more", len(names)-most))
	}
	return fmt.Sprintf("left out: %s of %s (%s)", tui.Plural(l.N, string(level)), tui.Plural(l.Captures, "capture"), strings.Join(parts, ", "))
}

// Evaluate scores the model of a task on labelled captures, by the likeliest label of
// each flow or packet. With System it scores flows by the verdict on all evidence, but
// without rejecting: a label that is not one of the model's counts as a wrong one. The
// files of one capture are then read together.
func (r *Reader) Evaluate(ctx context.Context, captures []dataset.Capture, e Evaluation) (*Result, error) {
	labels := r.classifier.Labels(e.Task)
	if labels == nil {
		return nil, fault.Advise(fmt.Errorf("model %q has no task %s", r.classifier.Models()[0].Name, e.Task),
			"name a model for that task with --model; dpclass models list shows them")
	}
	if e.System {
		// What names say need not be a label of the model.
		labels = append(slices.Clone(labels), otherLabel)
	}
	s := &scorer{Evaluation: e, reader: r, labels: labels, table: dataset.NewConfusion(labels)}
	s.out = Result{Task: e.Task, Level: e.Level, System: e.System, Sets: []string{}, LeftOut: LeftOut{Labels: map[string]int{}}}
	for _, m := range r.classifier.Models() {
		if m.Has(e.Task) {
			s.out.Model = m.Name
		}
	}
	if e.Level == ByFlow {
		s.out.Samples = r.classifier.Samples()
	}
	for _, files := range s.groups(captures) {
		if e.System {
			files = s.readable(files)
			s.trails = newTrails(r.classifier)
			var names []string
			for _, from := range files {
				names = append(names, from.File)
			}
			err := s.trails.together(ctx, names, r.DNS)
			s.trails.close()
			if err != nil {
				return nil, err
			}
		}
		for _, from := range files {
			err := s.capture(ctx, from)
			if unread := (*dataset.Unreadable)(nil); errors.As(err, &unread) {
				s.skip(from, unread.Err)
			} else if err != nil {
				return nil, err
			}
			s.done++
		}
	}
	s.out.Scores = s.table.Scores()
	if s.scored == 0 {
		return nil, fault.Advise(fmt.Errorf("nothing to score in %d captures (%s)", len(captures), s.out.LeftOut.Describe(e.Level)),
			"the labels of model %q are %s", s.out.Model, strings.Join(labels, ", "))
	}
	s.out.UnknownShare = float64(s.unknown) / float64(s.scored)
	return &s.out, nil
}

// otherLabel is the column of verdicts that are not one of the model's labels.
const otherLabel = "(other)"

// scorer scores captures.
type scorer struct {
	Evaluation
	reader  *Reader
	labels  []string
	table   *dataset.Confusion
	trails  *trails // of the capture that is scored; only with System
	done    int     // captures
	scored  int
	unknown int
	out     Result
}

// readable skips the files that cannot be opened.
func (s *scorer) readable(files []dataset.Capture) []dataset.Capture {
	return slices.DeleteFunc(slices.Clone(files), func(from dataset.Capture) bool {
		reader, err := capture.Open(from.File)
		if err != nil {
			s.skip(from, err)
			s.done++
			return true
		}
		reader.Close() // nothing was written
		return false
	})
}

// skip notes a file that cannot be read.
func (s *scorer) skip(from dataset.Capture, err error) {
	s.out.Skipped = append(s.out.Skipped, from.Path)
	if s.Skip != nil {
		s.Skip(from, err)
	}
}

// groups returns the files that are read together: with System those of one capture, else
// each by itself.
func (s *scorer) groups(captures []dataset.Capture) [][]dataset.Capture {
	var groups [][]dataset.Capture
	at := map[[2]string]int{}
	for _, from := range captures {
		name := [2]string{from.Set, from.Name}
		if i, known := at[name]; known && s.System && from.Name != "" {
			groups[i] = append(groups[i], from)
			continue
		}
		at[name] = len(groups)
		groups = append(groups, []dataset.Capture{from})
	}
	return groups
}

// capture scores one file, or counts it as left out.
func (s *scorer) capture(ctx context.Context, from dataset.Capture) error {
	label := from.Label(s.Task)
	truth := slices.Index(s.labels, label)
	inVPN := s.Task == flow.App && from.VPN && !s.IncludeVPN
	if truth < 0 || inVPN {
		if inVPN {
			label = "vpn"
		}
		return s.leaveOut(ctx, from, label)
	}
	rows := map[int]*classifier.Probabilities{} // by number of the flow
	p := pass{
		perFlow: s.out.Samples, tick: s.tick,
		each: func(f int, one classifier.Probabilities) {
			if s.Level == ByPacket {
				s.score(truth, one[s.Task])
				return
			}
			all := rows[f]
			if all == nil {
				all = &classifier.Probabilities{}
				rows[f] = all
			}
			all.Append(one)
		},
	}
	found, err := s.reader.run(ctx, from.File, p)
	if err != nil {
		return err
	}
	for f := range found.flows.Flows() {
		if f.Payloads == 0 {
			s.out.LeftOut.FlowsWithoutPayload++
		} else if s.System {
			s.scoreSystem(truth, rows[f.Number], s.trails.of(from.File, f.Key))
		} else if s.Level == ByFlow {
			s.score(truth, rows[f.Number][s.Task])
		}
	}
	s.out.Captures++
	if !slices.Contains(s.out.Sets, from.Set) {
		s.out.Sets = append(s.out.Sets, from.Set)
	}
	for _, warning := range found.warnings {
		if s.Warn != nil {
			s.Warn(warning)
		}
	}
	return nil
}

func (s *scorer) tick(int) {
	if s.Progress != nil {
		s.Progress(s.done, s.scored)
	}
}

// score counts one flow or packet.
func (s *scorer) score(truth int, rows [][]float32) {
	predicted, confidence := s.reader.classifier.Likeliest(s.Task, rows)
	s.table.Add(truth, predicted)
	s.scored++
	if s.reader.classifier.Rejects(s.Task, confidence) {
		s.unknown++
	}
}

// scoreSystem counts one flow by the verdict on all evidence.
func (s *scorer) scoreSystem(truth int, rows *classifier.Probabilities, trail *classifier.Trail) {
	label, source, confidence := s.reader.classifier.Score(s.Task, rows, trail)
	predicted := slices.Index(s.labels, label)
	if predicted < 0 {
		predicted = len(s.labels) - 1
	}
	s.table.Add(truth, predicted)
	s.scored++
	if source == flow.SourceModel && s.reader.classifier.Rejects(s.Task, confidence) {
		s.unknown++
	}
	if s.out.DecidedBy == nil {
		s.out.DecidedBy = map[string]DecidedBy{}
	}
	by := s.out.DecidedBy[source.String()]
	by.N++
	if predicted == truth {
		by.Right++
	}
	s.out.DecidedBy[source.String()] = by
}

// leaveOut counts the flows or packets that a capture would have had.
func (s *scorer) leaveOut(ctx context.Context, from dataset.Capture, label string) error {
	flows, packets, err := dataset.Count(ctx, from.File)
	if err != nil {
		if ctx.Err() == nil {
			err = &dataset.Unreadable{Err: err}
		}
		return err
	}
	s.out.LeftOut.Captures++
	s.out.LeftOut.Labels[label]++
	if s.Level == ByPacket {
		flows = packets
	}
	s.out.LeftOut.N += flows
	return nil
}
