// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
)

// Model is a model whose verdicts a policy acts on.
type Model struct {
	Name   string
	Labels map[flow.Task][]string // what it may say
}

// WithModels makes Parse warn about labels that none of the models says. Without models it
// warns about all labels: nothing classifies then, so that only an operator decides.
//
// A server name or a protocol may decide any category. Of apps, those that WithApps names:
// a rule on one of them has a warning only if it asks for a verdict of the model.
func WithModels(models ...Model) Option {
	return func(p *parsing) { p.models = append([]Model{}, models...) }
}

// unsaid warns about labels of a rule's category or app that the models never say.
func (p *parsing) unsaid(rule *flow.Rule, task flow.Task, node ast.Node) {
	if p.models == nil || rule.Sources != nil && !slices.Contains(rule.Sources, flow.SourceModel) {
		return
	}
	var names, labels []string
	for _, m := range p.models {
		if said, ok := m.Labels[task]; ok {
			names = append(names, m.Name)
			labels = append(labels, said...)
		}
	}
	p.words(node, task.String(), func(item ast.Node, label string) {
		if label == flow.Unknown && len(names) > 0 || slices.Contains(labels, label) {
			return
		}
		others := p.otherSources(rule, task, label)
		if task == flow.App && rule.Sources == nil && len(others) > 1 {
			return
		}
		what, that := "the model "+strings.Join(names, " or ")+" never says "+task.String()+" "+label, "that"
		switch {
		case len(p.models) == 0:
			what, that = "no model runs", label
		case len(names) == 0:
			var running []string
			for _, m := range p.models {
				running = append(running, m.Name)
			}
			what, that = "no model of "+plural[task]+" runs (only "+strings.Join(running, ", ")+")", label
		}
		if len(others) == 0 {
			p.warnf(item, "%s, and the rule acts on no other verdict", what)
			return
		}
		p.warnf(item, "%s: here only %s decides %s", what, joined(others, "or"), that)
	})
}

var plural = map[flow.Task]string{flow.Category: "categories", flow.App: "apps"}

// otherSources returns what decides a label apart from models, as far as the rule acts on it.
func (p *parsing) otherSources(rule *flow.Rule, task flow.Task, label string) (words []string) {
	byName := len(p.models) > 0 && (task == flow.Category || slices.Contains(p.apps, label))
	for _, source := range []struct {
		flow.Source
		can  bool
		word string
	}{
		{flow.SourceName, byName, "a server name"},
		{flow.SourceProtocol, byName, "a protocol"},
		{flow.SourceOperator, true, "an operator"},
	} {
		if source.can && (rule.Sources == nil || slices.Contains(rule.Sources, source.Source)) {
			words = append(words, source.word)
		}
	}
	return words
}
