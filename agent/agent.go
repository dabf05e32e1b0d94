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
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/loader"
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
	// SignalReload says that the process turns SIGUSR1 into a value from Reload. Only
	// then does [loader.Reload] send that signal, which ends a process that does not expect
	// it.
	SignalReload bool
	// Wait is how long the agent waits for an interface to return once none is left. The
	// default is DefaultWait.
	Wait time.Duration
}

// Defaults of Config.
const (
	DefaultQueue = 8192 // records: as many as two sweeps of one interface can return
	DefaultDrain = 3 * time.Second
	DefaultWait  = 10 * time.Second
)

const (
	sweepEvery    = time.Second
	publishEvery  = time.Second
	resampleEvery = 20 * time.Millisecond
	keepEvery     = 50 * time.Millisecond
	lostEvery     = time.Second
	retryEvery    = 2 * time.Second

	// lastBatch is how long the classifier may take for the batch at work before the agent
	// ends without its decisions.
	lastBatch = 300 * time.Millisecond
)

// ErrGone is wrapped by the error that ends an agent that has lost all interfaces.
var ErrGone = errors.New("no interface is left")

// ErrStuck is wrapped by the error of Close if the classifier has not stopped.
var ErrStuck = errors.New("the classifier has not stopped: a model does not return")

// Agent serves some interfaces with one classifier.
type Agent struct {
	config  Config
	log     *slog.Logger
	started time.Time

	latency latencies
	queues  []*queue
	abandon context.CancelFunc // ends the context of the sinks

	ports   atomic.Pointer[[]*port] // served now; once Run runs, only checkPorts replaces it, as a whole
	waiting []Port                  // lost, to be attached again; only checkPorts uses it
	alone   time.Time               // since when none is served; only checkPorts uses it
	next    atomic.Int64            // index of the next port

	decided chan struct{}       // closed unless the classifier runs; Run replaces it
	storing sync.Mutex          // held while decisions are stored
	shut    bool                // nothing is stored any more; guarded by storing
	lacks   [flow.NumTasks]bool // tasks that a swap of models took away; guarded by storing
	ending  atomic.Bool

	publishing            sync.Mutex
	reloadsBegun, reloads uint32 // guarded by publishing
	reloadError           string // guarded by publishing

	mu        sync.Mutex
	lastError string
	noted     map[string]string // the last error of each place
	lost      []string          // interfaces that were lost, with the reasons
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
	if config.Wait <= 0 {
		config.Wait = DefaultWait
	}
	a := &Agent{config: config, log: config.Log, started: time.Now(), noted: map[string]string{}, decided: make(chan struct{})}
	close(a.decided) // Run makes another one
	ports := make([]*port, 0, len(config.Ports))
	for _, p := range config.Ports {
		ports = append(ports, a.newPort(p))
	}
	a.ports.Store(&ports)
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

func (a *Agent) newPort(p Port) *port {
	// An earlier agent may have kept samples too: begin somewhere.
	return &port{Port: p, index: int(a.next.Add(1)) - 1, kept: keeper{round: rand.IntN(flow.MaxSamples)}}
}

// serving returns the ports that are served now.
func (a *Agent) serving() []*port { return *a.ports.Load() }

// Run serves the interfaces until the context ends, and then returns nil. If the classifier
// fails or no interface is left, Run ends early and returns the error. At the end it stops
// the sources, then the classifier, and sweeps once more. After that nothing writes to the
// tables, even if the classifier has not stopped, and the caller can detach. Run does not
// wait for the classifier or the sinks: Close does. Run may be called once.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.publish(false); err != nil {
		return err
	}
	if a.config.Classifier != nil {
		// An earlier agent may have left flows undecided, and its evidence about them is
		// lost.
		for _, p := range a.serving() {
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
	var watchers sync.WaitGroup
	do := func(ctx context.Context, what string, work func(context.Context) error) {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			fail(fmt.Errorf("%s: %w", what, err))
		}
	}
	begin := func(what string, work func(context.Context) error) {
		watchers.Go(func() { do(watching, what, work) })
	}
	if c := a.config.Classifier; c != nil {
		decided := make(chan struct{})
		a.decided = decided
		go func() {
			defer close(decided)
			do(deciding, "classifier", func(ctx context.Context) error { return c.Run(ctx, a.store) })
		}()
		begin("resample", every(resampleEvery, always(a.resample)))
		begin("keep", every(keepEvery, always(a.keep)))
	}
	for _, p := range a.serving() {
		a.read(watching, p)
	}
	begin("sweep", every(sweepEvery, always(a.sweep)))
	begin("statistics", a.publishLoop)
	begin("interfaces", every(lostEvery, func() error { return a.checkPorts(watching) }))
	begin("reload", a.reloadLoop)

	<-watching.Done()
	watchers.Wait()
	for _, p := range a.serving() {
		p.readers.Wait()
	}
	stop()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastBatch)
	a.awaitClassifier(limited)
	cancel()
	a.storing.Lock()
	a.shut = true
	a.storing.Unlock()
	a.sweep()
	a.ending.Store(true)
	a.publishOrNote(false)
	for _, p := range a.serving() { // a reload may be under way, and the caller closes the tables
		p.retire()
	}
	if cause := context.Cause(watching); !errors.Is(cause, context.Cause(ctx)) {
		return cause
	}
	return nil
}

// awaitClassifier waits until the classifier has stopped, or the context ends.
func (a *Agent) awaitClassifier(ctx context.Context) (stopped bool) {
	select {
	case <-a.decided: // even if the time is up, because a sink used it
		return true
	default:
	}
	select {
	case <-a.decided:
		return true
	case <-ctx.Done():
		return false
	}
}

// read starts the readers of a port. A source that fails is tried again, so that one
// interface takes nothing from the others.
func (a *Agent) read(ctx context.Context, p *port) {
	ctx, p.stop = context.WithCancel(ctx)
	c := a.config.Classifier
	if c == nil {
		return
	}
	again := func(what string, work func() error) {
		p.readers.Go(func() {
			for {
				err := work()
				if ctx.Err() != nil {
					return
				}
				if err == nil {
					err = errors.New("it ended unexpectedly")
				}
				p.failed.Store(time.Now().UnixNano())
				a.fault("read "+what, p, err)
				select {
				case <-ctx.Done():
					return
				case <-time.After(retryEvery):
				}
			}
		})
	}
	again("samples", func() error { return p.Source.Samples(ctx, func(s *flow.Sample) { a.submit(c, p, s) }) })
	if p.DNS != nil {
		again("DNS answers", func() error { return p.DNS.Answers(ctx, c.Answer) })
	}
}

// Close waits until the classifier has stopped, lets the sinks write the records that wait
// for them and closes them. Whatever these do, it returns after Config.Drain at the latest,
// or when the context ends. The error says whether the classifier has stopped, and how many
// records each sink has lost since New. Call it after Run has returned and the interfaces
// are detached, so that dpclass no longer handles packets while a slow reader reads the rest
// of a log. A second call does nothing.
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
	if !a.awaitClassifier(ctx) {
		errs = append(errs, ErrStuck)
	}
	return errors.Join(errs...)
}

// store writes a batch of decisions to the tables. The classifier calls it from
// one goroutine at a time.
func (a *Agent) store(decisions []flow.Decision) {
	a.storing.Lock()
	defer a.storing.Unlock()
	if a.shut {
		return
	}
	a.dropLacking(decisions)
	ports := a.serving()
	if len(ports) == 1 && a.next.Load() == 1 {
		a.storeAt(ports[0], decisions)
		return
	}
	for _, p := range ports {
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

// dropLacking removes verdicts on tasks that the models no longer have: a batch may have
// been on its way while they were replaced.
func (a *Agent) dropLacking(decisions []flow.Decision) {
	for task, lacks := range a.lacks {
		for n := range decisions {
			if v := &decisions[n].Verdicts[task]; lacks && v.Source == flow.SourceModel && !v.Final {
				*v = flow.Verdict{}
			}
		}
	}
}

func (a *Agent) storeAt(p *port, decisions []flow.Decision) {
	var stale int
	err := p.with(func() (err error) {
		stale, err = p.Table.Apply(decisions)
		return err
	})
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
	if p.kept.add(s, p.Samples) {
		a.flushKept(p)
	}
	p.submit(c, s)
}

// keep stores the samples that wait to be kept, and lets the next ones be kept.
func (a *Agent) keep() {
	for _, p := range a.serving() {
		a.flushKept(p)
		p.kept.tick()
	}
}

func (a *Agent) flushKept(p *port) {
	err := p.kept.flush(func(samples []flow.Sample) error { return p.with(func() error { return p.Table.Keep(samples) }) })
	if err != nil {
		a.fault("keep samples", p, err)
	}
}

// resample makes the kernel sample the flows again whose sample was shed. It runs at
// intervals, not at once, because the classifier is overloaded.
func (a *Agent) resample() {
	for _, p := range a.serving() {
		ids := p.takeShed()
		if len(ids) == 0 {
			continue
		}
		if err := p.with(func() error { return p.Table.Resample(ids) }); err != nil {
			a.fault("sample flows again", p, err)
		}
	}
}

// sweep ends idle flows and passes on every flow that ended. If a table fails, sweep
// records the error and continues with the other ports.
func (a *Agent) sweep() {
	for _, p := range a.serving() {
		a.sweepPort(p)
	}
}

func (a *Agent) sweepPort(p *port) {
	var ended []flow.Record
	err := p.with(func() (err error) {
		ended, err = p.Table.Sweep()
		return err
	})
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

// checkPorts lets go of interfaces that can be served no longer, and attaches those again
// that have returned. It fails once none has been left for some time.
func (a *Agent) checkPorts(ctx context.Context) error {
	for _, p := range a.serving() {
		reason, err := p.Lost()
		if err != nil {
			a.fault("check", p, err)
		} else if reason != nil {
			a.letGo(p, reason)
		}
	}
	a.waiting = slices.DeleteFunc(a.waiting, func(lost Port) bool { return ctx.Err() == nil && a.retry(ctx, lost) })
	if len(a.serving()) > 0 {
		a.alone = time.Time{}
		return nil
	}
	if a.alone.IsZero() {
		a.alone = time.Now()
	}
	if len(a.waiting) > 0 && time.Since(a.alone) < a.config.Wait {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Errorf("%w: %s", ErrGone, strings.Join(a.lost, ", "))
}

// letGo stops serving an interface that was lost and detaches it.
func (a *Agent) letGo(p *port, reason error) {
	p.stop()
	p.readers.Wait()
	a.sweepPort(p)
	left := slices.DeleteFunc(slices.Clone(a.serving()), func(other *port) bool { return other == p })
	a.ports.Store(&left)
	if err := p.release(); err != nil {
		a.fault("let go of the interface", p, err)
	}
	wanted := errors.Is(reason, loader.ErrPinsGone) || errors.Is(reason, loader.ErrNetnsGone)
	next := "it is not attached again"
	if p.Again != nil && !wanted {
		a.waiting = append(a.waiting, p.Port)
		next = "it is attached again when an interface of this name is there"
	}
	a.mu.Lock()
	a.lost = append(a.lost, fmt.Sprintf("%s (%v)", p.Name, reason))
	a.mu.Unlock()
	a.log.Warn("let go of an interface", "iface", p.Name, "reason", reason, "next", next)
}

// retry attaches a lost interface again, if it has returned.
func (a *Agent) retry(ctx context.Context, lost Port) (done bool) {
	back, err := lost.Again(ctx)
	if err != nil {
		if !errors.Is(err, ErrNotYet) && ctx.Err() == nil {
			a.fault("attach again", &port{Port: lost}, err)
		}
		return false
	}
	p := a.newPort(back)
	ports := append(slices.Clone(a.serving()), p)
	a.ports.Store(&ports)
	a.read(ctx, p)
	a.mu.Lock()
	a.lost = slices.DeleteFunc(a.lost, func(text string) bool { return strings.HasPrefix(text, p.Name+" (") })
	a.mu.Unlock()
	a.publishOrNote(true)
	a.log.Info("attached an interface again", "iface", p.Name)
	return true
}

// reloadLoop replaces the models on each value from Config.Reload. A model can take forever
// to load: the end of the context does not wait for it.
func (a *Agent) reloadLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.config.Reload:
		}
		// Whoever asked waits for this: it must be known before the models are read.
		a.publishing.Lock()
		a.reloadsBegun++
		a.publishing.Unlock()
		a.publishOrNote(true)
		result := make(chan error, 1)
		go func() { result <- a.reload(ctx) }()
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-result:
		}
		text := ""
		if err != nil {
			text = strings.Join(append([]string{err.Error()}, fault.Advice(err)...), "; ")
			a.log.Error("the models were not changed", "error", err, "advice", strings.Join(fault.Advice(err), "; "))
		}
		a.publishing.Lock()
		a.reloads, a.reloadError = a.reloadsBegun, text
		a.publishing.Unlock()
		a.publishOrNote(true)
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
	for _, p := range a.serving() {
		if name, ok := unlisted(models.Labels, p.Labels); ok {
			return fault.Advise(fmt.Errorf("the label table of %q lacks label %q of the new models", p.Name, name),
				"detach %s and attach it again to use them", p.Name)
		}
		if models.Samples > p.Samples {
			return fault.Advise(fmt.Errorf("the new models read %d packets of a flow, but %q copies only %d", models.Samples, p.Name, p.Samples),
				"detach %s and attach it again to use them", p.Name)
		}
	}
	if err := models.Use(); err != nil {
		return err
	}
	a.log.Info("models changed", "models", models.Names)
	a.storing.Lock()
	for _, task := range flow.Tasks {
		a.lacks[task] = !slices.Contains(models.Tasks, task)
	}
	lacks := a.lacks
	a.storing.Unlock()
	for _, p := range a.serving() {
		p.kept.again()
		err := p.with(func() error {
			var errs []error
			for task, lacking := range lacks {
				if lacking {
					errs = append(errs, p.Table.Withdraw(flow.Task(task)))
				}
			}
			return errors.Join(append(errs, p.Table.ResampleAll())...)
		})
		if err != nil {
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
