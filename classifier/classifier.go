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

	"github.com/dpclass/dpclass/flow"
)

// Defaults of Options.
const (
	DefaultBatch = 32
	DefaultDelay = 300 * time.Microsecond
	DefaultQueue = 4096
	DefaultFlows = 65536
)

// Options configures a Classifier. The zero value of a field stands for its
// default.
type Options struct {
	Library       string   // ONNX Runtime's library; "": see FindLibrary
	Models        []*Model // one for each task, or one that has both
	Samples       int      // sample budget of a flow; default: the models'
	MinConfidence float64  // final verdicts below it are Unknown
	Workers       int      // default: one CPU less than there are, at least one
	Batch         int      // samples of a full batch
	Delay         time.Duration
	Queue         int // samples that may wait; more are shed
	Flows         int // undecided and just decided flows that are remembered
}

// Classifier runs models over samples. Submit, Forget, Swap, Stats and the
// offline functions may be called from any goroutine.
type Classifier struct {
	options Options
	started time.Time
	seed    maphash.Seed
	shards  []*shard

	mu      sync.Mutex // guards models, engine and the offline runners
	models  []*Model
	engine  *engine
	offline chan *runner // one for each CPU; nil: to be made
	inUse   sync.RWMutex // held for reading while offline runners are in use, taken before mu

	sinkMu sync.Mutex
	counts counts
	errMu  sync.Mutex
	failed error // of the newest batch that failed
}

type counts struct {
	samples, shed, late, classified, batches, verdicts, finals, failures atomic.Uint64
}

// Stats counts what was done since New.
type Stats struct {
	Samples    uint64 // handed to Submit
	Shed       uint64 // of them refused, the queue being full
	Late       uint64 // of them left out: their flow had its final verdict
	Classified uint64 // run through the models
	Batches    uint64
	BatchMean  float64
	Verdicts   uint64 // decisions handed out, provisional ones too
	Finals     uint64 // of them final
	Failures   uint64 // batches lost to an error
	Evicted    uint64 // flows forgotten for want of room
	Flows      int    // remembered
	Queued     int    // samples that wait
	Queue      int    // samples that may wait
	LastError  string
}

// New opens ONNX Runtime and the models.
func New(o Options) (*Classifier, error) {
	if len(o.Models) == 0 {
		return nil, errors.New("no model given")
	}
	if err := checkTasks(o.Models); err != nil {
		return nil, err
	}
	if o.Samples < 0 || o.Samples > maxSamples {
		return nil, fmt.Errorf("sample budget %d is not between 1 and %d", o.Samples, maxSamples)
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
	if err := openLibrary(o.Library); err != nil {
		return nil, err
	}
	c := &Classifier{options: o, started: time.Now(), seed: maphash.MakeSeed()}
	e, err := c.open(o.Models)
	if err != nil {
		return nil, err
	}
	c.models, c.engine = o.Models, e
	clock := func() time.Duration { return time.Since(c.started) }
	for range o.Workers {
		s, err := newShard(max(o.Batch, o.Queue/o.Workers), o.Batch, max(1, o.Flows/o.Workers), o.Delay, e.decider, clock)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		s.fresh = newRunner(e, o.Batch)
		c.shards = append(c.shards, s)
	}
	return c, nil
}

// open opens models and tries them out.
func (c *Classifier) open(models []*Model) (*engine, error) {
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

// Close frees the models. Run must have returned; nothing may be called after.
func (c *Classifier) Close() error {
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
		s.mu.Unlock()
		err = errors.Join(err, s.close())
	}
	c.closeOffline()
	c.engine.release()
	c.engine = nil
	return err
}

// Models returns the models in use.
func (c *Classifier) Models() []*Model {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.models
}

// Samples returns the sample budget of a flow.
func (c *Classifier) Samples() int { return c.decider().samples }

// Labels returns the labels of a task in output order, nil where no model has
// the task.
func (c *Classifier) Labels(task flow.Task) []string {
	for t, h := range c.decider().heads {
		if flow.Tasks[t] == task && h != nil {
			return h.labels
		}
	}
	return nil
}

func (c *Classifier) decider() *decider {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.engine.decider
}

// Swap puts other models in place of those in use; where it fails these stay.
// Flows without a final verdict begin anew: the caller has them sampled again.
// Final verdicts stay.
func (c *Classifier) Swap(models []*Model) error {
	if len(models) == 0 {
		return errors.New("no model given")
	}
	if err := checkTasks(models); err != nil {
		return err
	}
	e, err := c.open(models)
	if err != nil {
		return err
	}
	c.inUse.Lock()
	defer c.inUse.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.shards {
		r := newRunner(e, c.options.Batch)
		s.mu.Lock()
		if s.fresh != nil {
			s.fresh.close()
		}
		s.fresh = r
		s.table.restart(e.decider)
		s.mu.Unlock()
	}
	c.closeOffline()
	c.engine.release()
	c.models, c.engine = models, e
	return nil
}

// Submit queues a sample for classification, and copies what it needs. It never
// blocks. False means that the sample was shed: there are more than can be
// classified.
func (c *Classifier) Submit(s *flow.Sample) bool {
	c.counts.samples.Add(1)
	if !c.shard(s.ID).put(s) {
		c.counts.shed.Add(1)
		return false
	}
	return true
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
// call. A batch that fails is counted and dropped: its flows stay undecided.
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
	var err error
	for range c.shards {
		err = errors.Join(err, <-results)
	}
	return err
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
		}
		var late int
		tickets, late = s.take(r, tickets)
		s.mu.Unlock()
		c.counts.late.Add(uint64(late))
		if len(tickets) == 0 {
			continue
		}
		if err := r.run(len(tickets)); err != nil {
			c.counts.failures.Add(1)
			c.errMu.Lock()
			c.failed = err
			c.errMu.Unlock()
			continue
		}
		c.counts.batches.Add(1)
		c.counts.classified.Add(uint64(len(tickets)))
		s.mu.Lock()
		decisions = decisions[:0]
		// The models were swapped meanwhile: these flows are sampled anew.
		if s.fresh == nil {
			decisions = s.decide(r, tickets, decisions)
		}
		s.mu.Unlock()
		if len(decisions) == 0 {
			continue
		}
		finals := 0
		for i := range decisions {
			if decisions[i].Settled {
				finals++
			}
		}
		c.sinkMu.Lock()
		sink(decisions)
		c.sinkMu.Unlock()
		c.counts.verdicts.Add(uint64(len(decisions)))
		c.counts.finals.Add(uint64(finals))
	}
}

// Stats returns the counters.
func (c *Classifier) Stats() Stats {
	n := &c.counts
	stats := Stats{
		Samples: n.samples.Load(), Shed: n.shed.Load(), Late: n.late.Load(), Classified: n.classified.Load(),
		Batches: n.batches.Load(), Verdicts: n.verdicts.Load(), Finals: n.finals.Load(), Failures: n.failures.Load(),
	}
	if stats.Batches > 0 {
		stats.BatchMean = float64(stats.Classified) / float64(stats.Batches)
	}
	for _, s := range c.shards {
		s.mu.Lock()
		stats.Evicted += s.table.evicted
		stats.Flows += len(s.table.states)
		stats.Queued += s.length
		stats.Queue += len(s.queue)
		s.mu.Unlock()
	}
	c.errMu.Lock()
	defer c.errMu.Unlock()
	if c.failed != nil {
		stats.LastError = c.failed.Error()
	}
	return stats
}
