// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
)

// Confusion is what a model says of flows whose labels are known.
type Confusion struct {
	Labels []string `json:"labels"`
	Matrix [][]int  `json:"matrix"` // flows, by label in truth and then by what the model says, in the order of Labels
	Data   string   `json:"data"`   // which flows
}

// Share is the share of a class.
type Share struct {
	Class string  `json:"class"`
	Share float64 `json:"share"` // of its flows, 0 to 1
	Flows int     `json:"flows"` // of this class in the data
}

// Mistakes is what a rule does wrong by the verdicts of a model alone.
type Mistakes struct {
	Rule    int     `json:"rule"`
	Model   string  `json:"model"`
	Wrong   []Share `json:"wrong"`  // classes that the rule is not about: what it hits of them, the largest first
	Missed  []Share `json:"missed"` // classes that it is about: what it does not hit
	Data    string  `json:"data"`
	Ignored string  `json:"ignored,omitempty"` // what the figures do not take into account
}

// Misjudged returns for each rule that acts on verdicts of a model which share of each class it
// would hit wrongly and miss. A label that an earlier rule takes without further conditions is
// not the rule's. confusions are the model's by task; rules on a task without one are left out.
func Misjudged(p *flow.Policy, model string, confusions map[flow.Task]Confusion) (all []Mistakes) {
	taken := map[flow.Task][]string{}
	for n := range p.Rules {
		rule := &p.Rules[n]
		task, labels := flow.Category, rule.Categories
		if labels == nil {
			task, labels = flow.App, rule.Apps
		}
		c, ok := confusions[task]
		if labels == nil || !ok || rule.Sources != nil && !slices.Contains(rule.Sources, flow.SourceModel) {
			continue
		}
		m := Mistakes{Rule: n + 1, Model: model, Data: c.Data, Ignored: ignored(rule)}
		for truth, row := range c.Matrix {
			total, hit := 0, 0
			for said, flows := range row {
				total += flows
				if slices.Contains(labels, c.Labels[said]) && !slices.Contains(taken[task], c.Labels[said]) {
					hit += flows
				}
			}
			share := Share{Class: c.Labels[truth], Flows: total}
			switch meant := slices.Contains(labels, share.Class); {
			case total == 0:
			case meant && hit < total:
				share.Share = float64(total-hit) / float64(total)
				m.Missed = append(m.Missed, share)
			case !meant && hit > 0:
				share.Share = float64(hit) / float64(total)
				m.Wrong = append(m.Wrong, share)
			}
		}
		for _, shares := range [][]Share{m.Wrong, m.Missed} {
			slices.SortStableFunc(shares, func(a, b Share) int { return int(1e6 * (b.Share - a.Share)) })
		}
		all = append(all, m)
		if m.Ignored == "" && rule.Directions == nil {
			taken[task] = append(taken[task], labels...)
		}
	}
	return all
}

// ignored says which matches of a rule a confusion matrix says nothing about.
func ignored(r *flow.Rule) string {
	var keys []string
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"app", r.Categories != nil && r.Apps != nil}, {"protocol", r.Protocols != nil}, {"name", r.Names != nil}, {"host", r.Hosts != nil},
		{"port", r.Ports != nil}, {"source", r.Sources != nil}, {"min_confidence", r.MinConfidence > 0}, {"schedule", r.Schedule != nil},
	} {
		if key.set {
			keys = append(keys, key.name)
		}
	}
	return joined(keys, "and")
}

// ExplainMistakes writes what rules do wrong as sentences for people.
func ExplainMistakes(w io.Writer, model string, all []Mistakes) error {
	var out strings.Builder
	for _, m := range all {
		text := "would hit wrongly: " + shares(m.Wrong) + ". It would miss: " + shares(m.Missed) + "."
		if m.Ignored != "" {
			text += " This leaves aside its " + m.Ignored + "."
		}
		paragraph(&out, fmt.Sprintf("%d. ", m.Rule), text)
	}
	if len(all) == 0 {
		paragraph(&out, "", "No rule acts on a verdict that the model "+model+" could get wrong, as far as its manifest says.")
	} else {
		paragraph(&out, "", "These are shares of the flows of each class by what the model "+model+" alone says, measured on "+all[0].Data+
			". Names and protocols decide many flows before the model does, and are right more often.")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func shares(all []Share) string {
	if len(all) == 0 {
		return "nothing"
	}
	var words []string
	for _, s := range all {
		words = append(words, fmt.Sprintf("%.1f %% of %s (%d flows)", 100*s.Share, s.Class, s.Flows))
	}
	return strings.Join(words, ", ")
}
