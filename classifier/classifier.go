// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/addressbook"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/classifier/wire"
	"github.com/dpclass/dpclass/flow"
)

// Defaults of Options.
const (
	DefaultBatch = 32
	DefaultDelay = 300 * time.Microsecond
	DefaultQueue = 4096
	DefaultFlows = 65536
)

// Evidence says what verdicts may rest on.
type Evidence string

// The kinds of evidence.
const (
	EvidenceAll      Evidence = "all"      // server names, protocols and models
	EvidenceProtocol Evidence = "protocol" // protocols and models, but no names
	EvidenceModel    Evidence = "model"    // the models alone, as in the Deep Packet paper
)

// Options configures a Classifier. A field that is zero has its default.
type Options struct {
	Library       string           // ONNX Runtime's library; "": see ort.Find
	Models        []*model.Model   // one for each task, or one that has both; default: the default model
	Evidence      Evidence         // what verdicts may rest on; default: everything
	Names         *names.Catalogue // of services; default: the shipped one
	Samples       int              // payload packets of a flow that the models read, up to flow.MaxSamples; default: the models'
	MinConfidence float64          // final verdicts less confident than this are flow.Unknown
	Workers       int              // goroutines that classify live samples; default: one less than there are CPUs, at least 1
	Batch         int              // samples of a full batch
	Delay         time.Duration    // the longest that a sample waits for its batch to fill
	Queue         int              // samples that may wait; more are shed, and before that those of one-way flows and of sources that have many
	Flows         int              // undecided and just decided flows that are remembered
}

// Classifier runs models over samples. All methods but Close may be called from any
// goroutine; Run runs once at a time.
type Classifier struct {
	options Options
	started time.Time
	seed    maphash.Seed
	book    *addressbook.Book
	shards  []*shard

	mu      sync.Mutex // guards models, engine and the offline runners
	models  []*model.Model
	engine  *engine
	offline *pool        // one for each CPU; nil: to be made
	inUse   sync.RWMutex // held for reading while offline runners are in use, taken before mu

	sinkMu sync.Mutex // sink takes one batch at a time

	submitted atomic.Uint64

	abandoned atomic.Bool // Run returned although a network did not: the models are not freed

	statsMu    sync.Mutex
	batches    uint64
	classified uint64
	failed     error // of the newest batch that failed
}

// Stats says how a classifier has been doing since New.
type Stats struct {
	Samples   uint64  // handed to Submit, shed ones too
	Skipped   uint64  // samples whose flows needed no network
	BatchMean float64 // samples in a batch, on average; 0 before the first
	LastError string  // of the newest batch that was lost, "" where none was
}

// New opens ONNX Runtime and the models, and runs each model once. The caller closes
// the classifier.
func New(o Options) (*Classifier, error) {
	if len(o.Models) == 0 {
		var err error
		if o.Models, err = model.LoadAll(nil); err != nil {
			return nil, err
		}
	}
	if err := check(o.Models); err != nil {
		return nil, err
	}
	if o.Samples < 0 || o.Samples > flow.MaxSamples {
		return nil, fmt.Errorf("sample budget %d is not between 1 and %d", o.Samples, flow.MaxSamples)
	}
	if !(o.MinConfidence >= 0 && o.MinConfidence <= 1) {
		return nil, fmt.Errorf("minimum confidence %g is not between 0 and 1", o.MinConfidence)
	}
	def := func(value *int, fallback int) {
		if *value <= 0 {
			*value = fallback
		}
	}
	def(&o.Workers, max(1, runtime.NumCPU()-1))
	def(&o.Batch, DefaultBatch)
	def(&o.Queue, DefaultQueue)
	def(&o.Flows, DefaultFlows)
	if o.Delay <= 0 {
		o.Delay = DefaultDelay
	}
	switch o.Evidence {
	case "":
		o.Evidence = EvidenceAll
	case EvidenceAll, EvidenceProtocol, EvidenceModel:
	default:
		return nil, fmt.Errorf("evidence %q: want all, protocol or model", o.Evidence)
	}
	if o.Names == nil {
		o.Names = names.Default()
	}
	if err := ort.Open(o.Library); err != nil {
		return nil, err
	}
	c := &Classifier{options: o, started: time.Now(), seed: maphash.MakeSeed(), book: addressbook.New(serviceOf(o.Names))}
	e, err := c.open(o.Models)
	if err != nil {
		return nil, err
	}
	c.models, c.engine = o.Models, e
	clock := func() time.Duration { return time.Since(c.started) }
	for range o.Workers {
		s, err := newShard(max(o.Batch, o.Queue/o.Workers), o.Batch, max(1, o.Flows/o.Workers), o.Delay, c.judge(e), clock)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		s.fresh = newRunner(e, o.Batch)
		c.shards = append(c.shards, s)
	}
	return c, nil
}

// check checks which models are to be used together.
func check(models []*model.Model) error {
	if len(models) == 0 {
		return errors.New("no model given")
	}
	return model.CheckTasks(models)
}

// open opens models and tries them out.
func (c *Classifier) open(models []*model.Model) (*engine, error) {
	e, err := newEngine(models, newDecider(models, c.options.Samples, c.options.MinConfidence))
	if err != nil {
		return nil, err
	}
	r := newRunner(e, 2)
	err = r.probe()
	r.close()
	if err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// stopTime is how long a batch may take once Run is to end, before it is stopped, and how
// long the stop may take.
const stopTime = 500 * time.Millisecond

// ErrStuck is wrapped by the error of Run if a network did not return although it was
// stopped.
var ErrStuck = errors.New("a network does not return")

// Close frees the models. Run must have returned; nothing may be called after. If Run
// returned [ErrStuck], the memory of the models stays in use.
func (c *Classifier) Close() error {
	if c.abandoned.Load() {
		return nil
	}
	c.inUse.Lock()
	defer c.inUse.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.engine == nil {
		return nil
	}
	var err error
	for _, s := range c.shards {
		s.mu.Lock()
		if s.fresh != nil {
			s.fresh.close()
			s.fresh = nil
		}
		s.table.clear()
		s.mu.Unlock()
		err = errors.Join(err, s.close())
	}
	c.closeOffline()
	c.engine.release()
	c.engine = nil
	return err
}

// Models returns the models in use.
func (c *Classifier) Models() []*model.Model {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.models
}

// Samples returns how many payload packets of a flow the models read.
func (c *Classifier) Samples() int { return c.decider().samples }

// Budget returns how many payload packets of a flow the classifier looks at, at most: the
// sample budget of the kernel. It is more than the models read where a server name may
// come later.
func (c *Classifier) Budget() int { return c.budget(c.decider()) }

func (c *Classifier) budget(d *decider) int {
	if c.options.Samples > 0 || c.options.Evidence == EvidenceModel {
		return d.samples
	}
	return max(d.samples, wire.Budget)
}

// judge returns the judge of an engine.
func (c *Classifier) judge(e *engine) *judge {
	return &judge{decider: e.decider, use: c.options.Evidence, names: c.options.Names, book: c.book, budget: c.budget(e.decider)}
}

// Answer reads a DNS answer: flows to its addresses that have no name of their own get the
// name. now is in ns of CLOCK_MONOTONIC, as in samples.
func (c *Classifier) Answer(message []byte, now int64) error {
	_, err := c.book.Answer(message, time.Unix(0, now))
	return err
}

// Labels returns the labels of a task in output order, nil where no model has
// the task.
func (c *Classifier) Labels(task flow.Task) []string {
	if h := c.decider().heads[task]; h != nil {
		return h.labels
	}
	return nil
}

func (c *Classifier) decider() *decider {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.engine.decider
}

// BudgetOf returns what Budget would be with these models: a swap to them needs a kernel
// that samples as many packets.
func (c *Classifier) BudgetOf(models []*model.Model) int {
	return c.budget(newDecider(models, c.options.Samples, c.options.MinConfidence))
}

// Swap replaces the models in use; where it fails, they stay. Final verdicts stay, and what
// the packets said by themselves. What the models said of the other flows is dropped: the
// caller has these flows sampled again. Samples that wait are read by the new models.
func (c *Classifier) Swap(models []*model.Model) error {
	if err := check(models); err != nil {
		return err
	}
	e, err := c.open(models)
	if err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		e.release()
		return fmt.Errorf("read the clock: %w", err)
	}
	c.inUse.Lock()
	defer c.inUse.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.engine == nil {
		e.release()
		return errors.New("the classifier is closed")
	}
	for _, s := range c.shards {
		r := newRunner(e, c.options.Batch)
		s.mu.Lock()
		if s.fresh != nil {
			s.fresh.close()
		}
		s.fresh = r
		s.restart(c.judge(e), now.Nano())
		s.mu.Unlock()
	}
	c.closeOffline()
	c.engine.release()
	c.models, c.engine = models, e
	return nil
}

// Submit queues a sample for classification, and copies what it needs. It never
// blocks. It returns false where the sample was shed because the queue has no room for it.
func (c *Classifier) Submit(s *flow.Sample) bool {
	c.submitted.Add(1)
	return c.shard(s.ID).put(s)
}

// Forget drops what is known of a flow that has ended.
func (c *Classifier) Forget(id flow.ID) {
	s := c.shard(id)
	s.mu.Lock()
	s.table.forget(id)
	s.mu.Unlock()
}

func (c *Classifier) shard(id flow.ID) *shard {
	if len(c.shards) == 1 {
		return c.shards[0]
	}
	return c.shards[maphash.Comparable(c.seed, id)%uint64(len(c.shards))]
}

// Run classifies what Submit queues until the context ends, and hands the
// decisions to sink, one call at a time. The slice is used again after the
// call. A batch that fails or takes longer than 30 seconds is dropped, and [Stats] has its
// error: its flows stay undecided. Run returns at most a second after the end of the context,
// whatever a network does.
func (c *Classifier) Run(ctx context.Context, sink func([]flow.Decision)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(c.shards))
	for _, s := range c.shards {
		go func() {
			err := c.work(ctx, s, sink)
			if err != nil {
				cancel()
			}
			results <- err
		}()
	}
	over := make(chan struct{})
	defer close(over)
	late := c.stopAfter(ctx, over)
	var err error
	for range c.shards {
		select {
		case one := <-results:
			err = errors.Join(err, one)
		case <-late:
			c.abandoned.Store(true)
			return errors.Join(err, ErrStuck)
		}
	}
	return err
}

// stopAfter stops the batches that are still at work some time after the end of the
// context, and closes late if that does not help. It ends with over.
func (c *Classifier) stopAfter(ctx context.Context, over <-chan struct{}) (late chan struct{}) {
	late = make(chan struct{})
	pause := func() (ended bool) {
		select {
		case <-over:
			return true
		case <-time.After(stopTime):
			return false
		}
	}
	go func() {
		select {
		case <-ctx.Done():
		case <-over:
			return
		}
		if pause() {
			return
		}
		for _, s := range c.shards {
			s.stop()
		}
		if !pause() {
			close(late)
		}
	}()
	return late
}

// work is one worker's loop.
func (c *Classifier) work(ctx context.Context, s *shard, sink func([]flow.Decision)) error {
	var r *runner
	tickets := make([]ticket, 0, c.options.Batch)
	decisions := make([]flow.Decision, 0, c.options.Batch)
	defer func() {
		// The next Run goes on with this runner, unless a swap left another.
		s.mu.Lock()
		defer s.mu.Unlock()
		if r != nil && s.fresh == nil {
			s.fresh = r
		} else if r != nil {
			r.close()
		}
	}()
	defer s.wakeWith(ctx)()
	for {
		if err := s.wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.mu.Lock()
		if s.fresh != nil {
			if r != nil {
				r.close()
			}
			r, s.fresh = s.fresh, nil
			s.current = r
		}
		tickets, decisions = s.take(r, tickets, decisions)
		s.mu.Unlock()
		if len(tickets) > 0 {
			err := r.run(len(tickets), batchLimit)
			if ctx.Err() == nil || !errors.Is(err, ort.ErrStopped) {
				c.count(len(tickets), err)
			}
			s.mu.Lock()
			// Where the models were swapped meanwhile, these flows are sampled again.
			if err == nil && s.fresh == nil {
				decisions = s.decide(r, tickets, decisions)
			}
			s.mu.Unlock()
		}
		if len(decisions) == 0 || c.abandoned.Load() {
			continue
		}
		c.sinkMu.Lock()
		sink(decisions)
		c.sinkMu.Unlock()
	}
}

// count notes a batch for the statistics.
func (c *Classifier) count(samples int, err error) {
	c.statsMu.Lock()
	defer c.statsMu.Unlock()
	if err != nil {
		c.failed = err
		return
	}
	c.batches++
	c.classified += uint64(samples)
}

// Stats returns the statistics.
func (c *Classifier) Stats() Stats {
	stats := Stats{Samples: c.submitted.Load()}
	for _, s := range c.shards {
		s.mu.Lock()
		stats.Skipped += s.skipped
		s.mu.Unlock()
	}
	c.statsMu.Lock()
	defer c.statsMu.Unlock()
	if c.batches > 0 {
		stats.BatchMean = float64(c.classified) / float64(c.batches)
	}
	if c.failed != nil {
		stats.LastError = c.failed.Error()
	}
	return stats
}
