// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// NewPort returns the port of an attached interface. The caller keeps the interface
// and detaches it after [Agent.Run] has returned. If it is lost before, the agent detaches
// it and continues without it, unless the caller sets Again.
func NewPort(a *loader.Attachment) Port {
	p := Port{
		Name: a.Name(), Source: a.Ring(), Table: a.Table(), Labels: a.Labels(), Samples: a.Samples(), Publish: a.Publish,
		Lost: a.Lost, Release: a.Detach,
	}
	if dns := a.DNS(); dns != nil {
		p.DNS = dns
	}
	return p
}

// NewClassifier returns c in the form that [Config] takes, and nil if c is nil. load
// reads the models for a reload; if it is nil, a reload is an error. The caller keeps
// c and closes it after [Agent.Run] has returned.
func NewClassifier(c *classifier.Classifier, load func() ([]*model.Model, error)) Classifier {
	if c == nil {
		return nil
	}
	return &networks{c, load}
}

// networks is a Classifier that runs neural networks.
type networks struct {
	*classifier.Classifier
	load func() ([]*model.Model, error)
}

// Answer reads a DNS answer. One that names no address, or is damaged, has no effect.
func (n *networks) Answer(a *flow.DNSAnswer) { _ = n.Classifier.Answer(a.Message, a.Time) }

// Load reads the models for a reload.
func (n *networks) Load(context.Context) (Models, error) {
	if n.load == nil {
		return Models{}, errors.New("this agent cannot change its models")
	}
	models, err := n.load()
	if err != nil {
		return Models{}, err
	}
	loaded := Models{
		Names: ModelNames(models), Labels: model.NewLabels(models), Samples: n.BudgetOf(models),
		Use: func() error { return n.Swap(models) },
	}
	for _, task := range flow.Tasks {
		if slices.ContainsFunc(models, func(m *model.Model) bool { return m.Has(task) }) {
			loaded.Tasks = append(loaded.Tasks, task)
		}
	}
	return loaded, nil
}

// Health sums up the classifier's counters.
func (n *networks) Health() Health {
	stats := n.Stats()
	models := n.Models()
	health := Health{Models: ModelNames(models), BatchMean: stats.BatchMean, LastError: stats.LastError}
	for _, m := range models {
		health.Says = append(health.Says, m.Labels)
	}
	return health
}

// ModelNames returns the names of models.
func ModelNames(models []*model.Model) []string {
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return names
}
