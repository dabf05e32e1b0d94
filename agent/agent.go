// SPDX-License-Identifier: Apache-2.0

// Package agent is the loop of dpclass attach: it carries samples from the
// kernel to the classifier and verdicts back, sweeps the flow tables and
// publishes how it is doing.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// Config is what an agent works with.
type Config struct {
	Interfaces []*loader.Interface
	Classifier *classifier.Classifier // nil: nothing is classified
	Log        *slog.Logger

	// Ended is called with every flow that ended, one at a time; may be nil.
	Ended func(flow.Record)

	// Stored is called with each batch of decisions once they are in the kernel's
	// maps, one at a time; may be nil.
	Stored func([]flow.Decision)

	// Reload asks for the models to be chosen anew: Models gives them.
	Reload <-chan os.Signal
	Models func() ([]*model.Model, error)
}

const (
	sweepEvery    = time.Second
	publishEvery  = time.Second
	resampleEvery = 20 * time.Millisecond
	hooksEvery    = 2 * time.Second
)

// ErrGone is wrapped by the error that ends an agent whose interfaces were all
// removed.
var ErrGone = errors.New("no interface is left")

// Agent serves some interfaces with one classifier.
type Agent struct {
	config  Config
	log     *slog.Logger
	started time.Time
	ports   []*port
	latency latencies

	mu        sync.Mutex
	lastError string
}

// port is the agent's side of one interface.
type port struct {
	*loader.Interface
	index int // flow.ID.Iface

	samples, verdicts, stale, shed atomic.Uint64
	batches, batched               atomic.Uint64

	mu       sync.Mutex
	resample []flow.ID // flows whose sample was shed

	decisions []flow.Decision // of the batch being stored
	rates     rates
	gone      bool
}

// New returns an agent; Run starts it.
func New(config Config) *Agent {
	a := &Agent{config: config, log: config.Log, started: time.Now()}
	for i, iface := range config.Interfaces {
		a.ports = append(a.ports, &port{Interface: iface, index: i})
	}
	return a
}

// Run serves the interfaces until the context ends. It does not detach them.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	begin := func(what string, work func(context.Context) error) {
		running.Add(1)
		go func() {
			defer running.Done()
			if err := work(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		}()
	}
	if c := a.config.Classifier; c != nil {
		begin("classifier", func(ctx context.Context) error { return c.Run(ctx, a.store) })
		for _, p := range a.ports {
			begin(fmt.Sprintf("samples of %q", p.Name()), func(ctx context.Context) error {
				return p.Samples(ctx, func(s *flow.Sample) { p.submit(c, s) })
			})
		}
		begin("sampling again", a.resampleLoop)
	}
	begin("sweep", a.sweepLoop)
	begin("statistics", a.publishLoop)
	begin("agent", a.hooksLoop)
	begin("reload", a.reloadLoop)
	<-ctx.Done()
	running.Wait()
	a.sweep() // what ended since the last time is told too
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// submit hands a sample to the classifier. A flow whose sample is shed is
// sampled again later.
func (p *port) submit(c *classifier.Classifier, s *flow.Sample) {
	s.ID.Iface = p.index
	p.samples.Add(1)
	if c.Submit(s) {
		return
	}
	p.shed.Add(1)
	p.mu.Lock()
	p.resample = append(p.resample, s.ID)
	p.mu.Unlock()
}

// store writes a batch of decisions to the interfaces' maps. The classifier
// calls it from one goroutine at a time.
func (a *Agent) store(decisions []flow.Decision) {
	if len(a.ports) == 1 {
		a.storeAt(a.ports[0], decisions)
		return
	}
	for _, p := range a.ports {
		p.decisions = p.decisions[:0]
		for _, d := range decisions {
			if d.ID.Iface == p.index {
				p.decisions = append(p.decisions, d)
			}
		}
		if len(p.decisions) > 0 {
			a.storeAt(p, p.decisions)
		}
	}
}

func (a *Agent) storeAt(p *port, decisions []flow.Decision) {
	stale, err := p.Apply(decisions)
	if err != nil {
		a.fault("store verdicts", p, err)
		return
	}
	if a.config.Stored != nil {
		a.config.Stored(decisions)
	}
	a.latency.add(decisions)
	p.verdicts.Add(uint64(len(decisions) - stale))
	p.stale.Add(uint64(stale))
	p.batches.Add(1)
	p.batched.Add(uint64(len(decisions)))
}

// resampleLoop has the flows sampled again whose sample was shed. A pause lies
// between the two: the classifier has more than it can do.
func (a *Agent) resampleLoop(ctx context.Context) error {
	return every(ctx, resampleEvery, func() error {
		for _, p := range a.ports {
			p.mu.Lock()
			ids := p.resample
			p.resample = nil
			p.mu.Unlock()
			if len(ids) == 0 {
				continue
			}
			if err := p.Resample(ids); err != nil {
				a.fault("sample flows again", p, err)
			}
		}
		return nil
	})
}

// sweepLoop ends idle flows and tells of every flow that ended.
func (a *Agent) sweepLoop(ctx context.Context) error {
	return every(ctx, sweepEvery, func() error {
		a.sweep()
		return nil
	})
}

func (a *Agent) sweep() {
	for _, p := range a.ports {
		ended, err := p.Sweep()
		if err != nil {
			a.fault("sweep", p, err)
		}
		for _, record := range ended {
			a.forget(p, &record)
			if a.config.Ended != nil {
				a.config.Ended(record)
			}
		}
	}
}

func (a *Agent) forget(p *port, record *flow.Record) {
	if a.config.Classifier == nil || record.Live == nil {
		return
	}
	a.config.Classifier.Forget(flow.ID{Iface: p.index, Key: record.Key(), Generation: record.Generation})
}

// publishLoop publishes the statistics.
func (a *Agent) publishLoop(ctx context.Context) error {
	if err := a.publish(); err != nil {
		return err
	}
	return every(ctx, publishEvery, func() error {
		if err := a.publish(); err != nil && a.note(err) {
			a.log.Error("the agent goes on", "error", err)
		}
		return nil
	})
}

// hooksLoop ends the agent once all of its interfaces are gone.
func (a *Agent) hooksLoop(ctx context.Context) error {
	return every(ctx, hooksEvery, a.checkHooks)
}

// checkHooks notices interfaces that went away under the agent.
func (a *Agent) checkHooks() error {
	left := 0
	var gone []string
	for _, p := range a.ports {
		if !p.gone {
			hooks, err := p.Hooks()
			p.gone = err == nil && allStale(hooks)
			if p.gone {
				a.log.Warn("the interface is gone: its hooks are stale", "iface", p.Name())
			}
		}
		if p.gone {
			gone = append(gone, p.Name())
		} else {
			left++
		}
	}
	if left == 0 {
		return fmt.Errorf("%w: %s", ErrGone, strings.Join(gone, ", "))
	}
	return nil
}

func allStale(hooks []loader.Hook) bool {
	for _, hook := range hooks {
		if hook.State != "stale" {
			return false
		}
	}
	return len(hooks) > 0
}

// reloadLoop swaps the models when it is asked to.
func (a *Agent) reloadLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.config.Reload:
			if err := a.reload(); err != nil {
				a.log.Error("the models stay as they are", "error", err)
				a.note(err)
			}
		}
	}
}

func (a *Agent) reload() error {
	if a.config.Classifier == nil {
		return errors.New("this agent does not classify")
	}
	models, err := a.config.Models()
	if err != nil {
		return err
	}
	for _, p := range a.ports {
		if name, ok := unlisted(model.NewLabels(models), p.Labels()); ok {
			return fmt.Errorf("label %q of the new model is not in the label table of %q: attach anew to use it", name, p.Name())
		}
	}
	if err := a.config.Classifier.Swap(models); err != nil {
		return err
	}
	a.log.Info("models changed", "models", ModelNames(models))
	for _, p := range a.ports {
		if err := p.ResampleAll(); err != nil {
			a.fault("sample flows again", p, err)
		}
	}
	return nil
}

// unlisted returns a name that the list lacks.
func unlisted(names, list []string) (string, bool) {
	have := map[string]bool{}
	for _, name := range list {
		have[name] = true
	}
	for _, name := range names {
		if !have[name] {
			return name, true
		}
	}
	return "", false
}

// ModelNames returns the names of models.
func ModelNames(models []*model.Model) []string {
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return names
}

// fault notes an error that does not end the agent, and logs it unless it is
// the one logged last.
func (a *Agent) fault(what string, p *port, err error) {
	err = fmt.Errorf("%s of %q: %w", what, p.Name(), err)
	if a.note(err) {
		a.log.Error("the agent goes on", "error", err)
	}
}

// note keeps an error for the status and tells whether it is a new one.
func (a *Agent) note(err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := a.lastError != err.Error()
	a.lastError = err.Error()
	return fresh
}

// every calls fn at each tick until the context ends or fn fails.
func every(ctx context.Context, period time.Duration, fn func() error) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := fn(); err != nil {
				return err
			}
		}
	}
}
