// SPDX-License-Identifier: Apache-2.0

// Package agent is the loop of "dpclass attach". It carries samples from the
// kernel to the classifier and verdicts back, sweeps the flow tables, hands the
// records of ended flows to sinks and publishes statistics.
//
// It works through the Go interfaces [Source], [Table], [Classifier] and [Sink];
// [NewPort] and [NewClassifier] make them from the types of packages loader and
// classifier.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

// Config configures an agent.
type Config struct {
	Ports      []Port
	Classifier Classifier   // nil: nothing is classified
	Log        *slog.Logger // nil: slog.Default()

	// Sinks get the record of every flow that ended.
	Sinks []Sink

	// Queue is how many records may wait for each sink; when it is full, new records
	// are dropped. The default is DefaultQueue.
	Queue int

	// Drain limits how long Close waits for the sinks. The default is DefaultDrain.
	Drain time.Duration

	// Stored is called with the decisions of a batch for one port, after its table
	// took them, one call at a time. Some may be stale: their flow has ended, and
	// the table did not store them. Classification waits for the call, so it should
	// return soon. The slice is valid only during the call. May be nil.
	Stored func([]flow.Decision)

	// Each value from Reload makes the agent load the models again and replace those
	// in use. May be nil.
	Reload <-chan struct{}
}

// Defaults of Config.
const (
	DefaultQueue = 8192 // records: as many as two sweeps of one interface can return
	DefaultDrain = 3 * time.Second
)

const (
	sweepEvery    = time.Second
	publishEvery  = time.Second
	resampleEvery = 20 * time.Millisecond
	keepEvery     = 50 * time.Millisecond
	goneEvery     = 2 * time.Second
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

	queues  []*queue
	abandon context.CancelFunc // ends the context of the sinks

	mu        sync.Mutex
	lastError string
	noted     map[string]string // the last error of each place
	closed    bool
}

// New returns an agent whose sinks are running. Run serves the interfaces, and Close
// stops the sinks.
func New(config Config) *Agent {
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Queue <= 0 {
		config.Queue = DefaultQueue
	}
	if config.Drain <= 0 {
		config.Drain = DefaultDrain
	}
	a := &Agent{config: config, log: config.Log, started: time.Now(), noted: map[string]string{}}
	for i, p := range config.Ports {
		a.ports = append(a.ports, &port{Port: p, index: i})
	}
	// Not a caller's context: the sinks continue after the context of Run has ended.
	ctx, cancel := context.WithCancel(context.Background())
	a.abandon = cancel
	for _, sink := range config.Sinks {
		q := newQueue(sink, config.Queue, config.Log)
		a.queues = append(a.queues, q)
		go q.work(ctx)
	}
	return a
}

// Run serves the interfaces until the context ends, and then returns nil. If something
// fails for good, Run ends early and returns the error. At the end it stops the
// sources, then the classifier, and sweeps once more. After that nothing writes to the
// tables, and the caller can detach. Run does not wait for the sinks: Close does. Run
// may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.publish(false); err != nil {
		return err
	}
	if a.config.Classifier != nil {
		// An earlier agent may have left flows undecided, and its evidence about them is
		// lost.
		for _, p := range a.ports {
			if err := p.Table.ResampleAll(); err != nil {
				return fmt.Errorf("sample the flows of %q again: %w", p.Name, err)
			}
		}
	}
	// The classifier stops after the sources.
	watching, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	deciding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var watchers, deciders sync.WaitGroup
	begin := func(ctx context.Context, group *sync.WaitGroup, what string, work func(context.Context) error) {
		group.Go(func() {
			if err := work(ctx); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	if c := a.config.Classifier; c != nil {
		begin(deciding, &deciders, "classifier", func(ctx context.Context) error { return c.Run(ctx, a.store) })
		for _, p := range a.ports {
			begin(watching, &watchers, fmt.Sprintf("samples of %q", p.Name), func(ctx context.Context) error {
				return p.Source.Samples(ctx, func(s *flow.Sample) { a.submit(c, p, s) })
			})
			if p.DNS != nil {
				begin(watching, &watchers, fmt.Sprintf("DNS answers of %q", p.Name), func(ctx context.Context) error {
					return p.DNS.Answers(ctx, c.Answer)
				})
			}
		}
		begin(watching, &watchers, "resample", every(resampleEvery, always(a.resample)))
		begin(watching, &watchers, "keep", every(keepEvery, always(a.keep)))
	}
	begin(watching, &watchers, "sweep", every(sweepEvery, always(a.sweep)))
	begin(watching, &watchers, "statistics", a.publishLoop)
	begin(watching, &watchers, "interfaces", every(goneEvery, a.checkPorts))
	begin(watching, &watchers, "reload", a.reloadLoop)

	<-watching.Done()
	watchers.Wait()
	stop()
	deciders.Wait()
	a.sweep()
	a.publishOrNote(false)
	if cause := context.Cause(watching); !errors.Is(cause, context.Cause(ctx)) {
		return cause
	}
	return nil
}

// Close lets the sinks write the records that wait for them and closes them. Whatever
// the sinks do, it returns after Config.Drain at the latest, or when the context ends.
// The error says how many records each sink has lost since New. Call it after Run has
// returned and the interfaces are detached, so that dpclass no longer handles packets
// while a slow reader reads the rest of a log. A second call does nothing.
func (a *Agent) Close(ctx context.Context) error {
	a.mu.Lock()
	closed := a.closed
	a.closed = true
	a.mu.Unlock()
	if closed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.config.Drain)
	defer cancel()
	defer a.abandon()
	for _, q := range a.queues {
		close(q.records)
	}
	var errs []error
	for _, q := range a.queues {
		errs = append(errs, q.finish(ctx))
	}
	return errors.Join(errs...)
}

// store writes a batch of decisions to the tables. The classifier calls it from
// one goroutine at a time.
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
	stale, err := p.Table.Apply(decisions)
	if err != nil {
		a.fault("store verdicts", p, err)
		return
	}
	if a.config.Stored != nil {
		a.config.Stored(decisions)
	}
	a.latency.add(decisions)
	p.verdicts.Add(uint64(len(decisions) - stale))
	p.batches.Add(1)
}

// submit hands a sample to the classifier, and keeps it for "dpclass explain".
func (a *Agent) submit(c Classifier, p *port, s *flow.Sample) {
	if p.kept.add(s) {
		a.flushKept(p)
	}
	p.submit(c, s)
}

// keep stores the samples that wait to be kept, and lets the next ones be kept.
func (a *Agent) keep() {
	for _, p := range a.ports {
		a.flushKept(p)
		p.kept.tick()
	}
}

func (a *Agent) flushKept(p *port) {
	if err := p.kept.flush(p.Table.Keep); err != nil {
		a.fault("keep samples", p, err)
	}
}

// resample makes the kernel sample the flows again whose sample was shed. It runs at
// intervals, not at once, because the classifier is overloaded.
func (a *Agent) resample() {
	for _, p := range a.ports {
		ids := p.takeShed()
		if len(ids) == 0 {
			continue
		}
		if err := p.Table.Resample(ids); err != nil {
			a.fault("sample flows again", p, err)
		}
	}
}

// sweep ends idle flows and passes on every flow that ended. If a table fails, sweep
// records the error and continues with the other ports.
func (a *Agent) sweep() {
	for _, p := range a.ports {
		ended, err := p.Table.Sweep()
		if err != nil {
			a.fault("sweep", p, err)
		}
		for i := range ended {
			a.forget(p, &ended[i])
			for _, q := range a.queues {
				q.offer(&ended[i])
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

// publishLoop publishes the statistics, which say "ready" as soon as it starts.
func (a *Agent) publishLoop(ctx context.Context) error {
	publish := func() { a.publishOrNote(true) }
	publish()
	return every(publishEvery, always(publish))(ctx)
}

func (a *Agent) publishOrNote(ready bool) {
	if err := a.publish(ready); err != nil && a.note("statistics", err) {
		a.log.Error("cannot publish statistics", "error", err)
	}
}

// checkPorts logs interfaces that were removed, and fails once all of them are gone.
func (a *Agent) checkPorts() error {
	left := 0
	var names []string
	for _, p := range a.ports {
		if !p.gone {
			gone, err := p.Gone()
			if err != nil {
				a.fault("check", p, err)
			} else if p.gone = gone; gone {
				a.log.Warn("the interface was removed", "iface", p.Name)
			}
		}
		if !p.gone {
			left++
		}
		names = append(names, p.Name)
	}
	if left == 0 {
		return fmt.Errorf("%w: %s", ErrGone, strings.Join(names, ", "))
	}
	return nil
}

// reloadLoop replaces the models on each value from Config.Reload.
func (a *Agent) reloadLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.config.Reload:
			if err := a.reload(ctx); err != nil {
				a.note("reload", err)
				a.log.Error("the models were not changed", "error", err, "advice", strings.Join(fault.Advice(err), "; "))
			}
		}
	}
}

// reload replaces all models, or returns an error and changes nothing.
func (a *Agent) reload(ctx context.Context) error {
	if a.config.Classifier == nil {
		return errors.New("this agent does not classify")
	}
	models, err := a.config.Classifier.Load(ctx)
	if err != nil {
		return err
	}
	for _, p := range a.ports {
		if name, ok := unlisted(models.Labels, p.Labels); ok {
			return fault.Advise(fmt.Errorf("the label table of %q lacks label %q of the new models", p.Name, name),
				"detach %s and attach it again to use them", p.Name)
		}
	}
	if err := models.Use(); err != nil {
		return err
	}
	a.log.Info("models changed", "models", models.Names)
	for _, p := range a.ports {
		if err := p.Table.ResampleAll(); err != nil {
			a.fault("sample flows again", p, err)
		}
	}
	return nil
}

// unlisted returns the first name that the list lacks.
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

// fault notes an error of a port that does not end the agent, and logs it unless
// the port's last error at the same work was the same.
func (a *Agent) fault(what string, p *port, err error) {
	err = fmt.Errorf("%s on %q: %w", what, p.Name, err)
	if a.note(what+" on "+p.Name, err) {
		a.log.Error("the agent continues after an error", "error", err)
	}
}

// note keeps an error for the statistics and reports whether it differs from the
// last one of the same place.
func (a *Agent) note(place string, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := a.noted[place] != err.Error()
	a.noted[place] = err.Error()
	a.lastError = err.Error()
	return fresh
}

// every returns a loop that calls fn at each tick until the context ends or fn
// fails.
func every(period time.Duration, fn func() error) func(context.Context) error {
	return func(ctx context.Context) error {
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
}

// always turns fn into a function for every that never fails.
func always(fn func()) func() error {
	return func() error {
		fn()
		return nil
	}
}
