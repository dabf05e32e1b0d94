// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// Source delivers the samples of one interface.
type Source interface {
	// Samples calls fn with each sample, one at a time, until the context ends,
	// and then returns nil. The sample is valid only during the call. fn does not
	// block. The agent sets ID.Iface.
	Samples(ctx context.Context, fn func(*flow.Sample)) error
}

// Answers delivers the DNS answers that the kernel copies on one interface.
type Answers interface {
	// Answers calls fn with each answer, one at a time, until the context ends, and then
	// returns nil. The answer is valid only during the call.
	Answers(ctx context.Context, fn func(*flow.DNSAnswer)) error
}

// Table is the flow table of one interface. Its methods may be called concurrently.
// It ignores ID.Iface, the agent's number of the interface.
type Table interface {
	// Apply stores verdicts. stale counts the decisions whose flow has ended, or whose
	// 5-tuple now belongs to a new flow.
	Apply(decisions []flow.Decision) (stale int, err error)

	// Keep stores samples for "dpclass explain". The slice is valid only during the call.
	Keep(samples []flow.Sample) error

	// Resample takes back one sample of each flow: the flow's next payload packet is
	// sampled instead.
	Resample(ids []flow.ID) error

	// ResampleAll takes back all samples of every flow without a final verdict.
	ResampleAll() error

	// Withdraw takes back the models' verdicts on a task that are not final.
	Withdraw(task flow.Task) error

	// Sweep ends idle flows and returns the flows that ended since the last call.
	Sweep() ([]flow.Record, error)
}

// Classifier turns samples into decisions. [NewClassifier] makes one that runs
// neural networks.
type Classifier interface {
	// Submit takes a sample and copies what it needs. It does not block. It returns
	// false if the sample was shed.
	Submit(s *flow.Sample) bool

	// Answer reads a DNS answer: it may name flows to its addresses.
	Answer(a *flow.DNSAnswer)

	// Forget drops everything about a flow that has ended.
	Forget(id flow.ID)

	// Run classifies the submitted samples until the context ends, and then returns
	// nil. It calls store with the decisions, one call at a time. The slice is valid
	// only during the call.
	Run(ctx context.Context, store func([]flow.Decision)) error

	// Load reads the models that will replace those in use, and checks them as far as
	// it can without using them.
	Load(ctx context.Context) (Models, error)

	// Health returns the models in use and how the classifier is doing.
	Health() Health
}

// Models is a set of loaded models.
type Models struct {
	Names   []string    // for the log
	Labels  []string    // beyond flow.Vocabulary; the label table of every port must have them
	Tasks   []flow.Task // that they have a verdict on
	Samples int         // payload packets of a flow that they look at; every port must sample as many

	// Use replaces the models in use by these. If it returns an error, it has changed
	// nothing. What models have said of flows without a final verdict is forgotten.
	Use func() error
}

// Health is what a classifier reports about itself.
type Health struct {
	Models    []string                 // names of the models in use
	Says      []map[flow.Task][]string // labels that each of them may say
	BatchMean float64                  // mean number of samples in a batch
	LastError string                   // error of the newest batch that failed; "" if none did
}

// Port is what the agent needs to serve one interface. [NewPort] makes one from an
// attached interface.
type Port struct {
	Name    string // name of the interface, for messages
	Source  Source
	DNS     Answers // nil: DNS answers are not read
	Table   Table
	Labels  []string // labels that the kernel's label table has
	Samples int      // payload packets that the kernel samples of a flow

	// Lost returns why the interface can be served no longer, and nil if it can. err says
	// that this is not known. If reason wraps [loader.ErrPinsGone] or [loader.ErrNetnsGone],
	// somebody wants it so, and the agent does not call Again.
	Lost func() (reason, err error)

	// Release detaches an interface that was lost. Nothing uses the port after that.
	Release func() error

	// Again attaches the interface that has the name now. The error wraps [ErrNotYet] if
	// no interface has it. If Again is nil, a lost interface does not return.
	Again func(context.Context) (Port, error)

	// Publish stores the agent's statistics where "dpclass status" reads them.
	Publish func(loader.AgentStats) error
}

// ErrNotYet is wrapped by the error of Again as long as there is no interface to attach.
var ErrNotYet = errors.New("the interface has not returned")

// port is a Port with the agent's own state.
type port struct {
	Port
	index int // flow.ID.Iface; no other port of the agent has or had it

	samples, verdicts, shed, batches atomic.Uint64

	mu       sync.Mutex
	resample []flow.ID // flows of which a sample was shed

	kept keeper

	decisions []flow.Decision // decisions of the batch being stored; only store uses it
	rates     rates           // only publish uses it

	stop    context.CancelFunc // ends the readers
	readers sync.WaitGroup
	failed  atomic.Int64 // when a source failed last, in ns since 1970; 0: never

	use      sync.RWMutex // held for reading while the table or Publish is in use
	released bool
}

// with calls fn, which uses the table or Publish, unless the port was released.
func (p *port) with(fn func() error) error {
	p.use.RLock()
	defer p.use.RUnlock()
	if p.released {
		return nil
	}
	return fn()
}

// release lets go of the interface.
func (p *port) release() error {
	p.retire()
	return p.Release()
}

// retire ends every use of the table and of Publish.
func (p *port) retire() {
	p.use.Lock()
	defer p.use.Unlock()
	p.released = true
}

// isFailing reports whether a source has failed lately.
func (p *port) isFailing(now time.Time) bool {
	failed := p.failed.Load()
	return failed != 0 && now.UnixNano()-failed < int64(2*retryEvery)
}

// submit hands a sample to the classifier. If the sample is shed, it remembers the
// flow.
func (p *port) submit(c Classifier, s *flow.Sample) {
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

// takeShed returns the flows of which a sample was shed since the last call.
func (p *port) takeShed() []flow.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := p.resample
	p.resample = nil
	return ids
}
