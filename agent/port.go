// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// Source delivers the samples of one interface.
type Source interface {
	// Samples calls fn with each sample, one at a time, until the context ends,
	// and then returns nil. The sample is valid during the call only; fn does not
	// block. The agent sets ID.Iface.
	Samples(ctx context.Context, fn func(*flow.Sample)) error
}

// Table is the flow table of one interface. Its methods may be called
// concurrently with each other. The agent's number of the interface, ID.Iface,
// means nothing to it.
type Table interface {
	// Apply stores verdicts. stale counts the decisions whose flow has ended or
	// has begun another life.
	Apply(decisions []flow.Decision) (stale int, err error)

	// Resample takes back one sample of each flow: the flow's next payload packet
	// is sampled in its place.
	Resample(ids []flow.ID) error

	// ResampleAll takes back all samples of every flow without a final verdict.
	ResampleAll() error

	// Sweep ends idle flows and returns the flows that ended since the last call.
	Sweep() ([]flow.Record, error)
}

// Classifier turns samples into decisions. [NewClassifier] makes one that runs
// neural networks.
type Classifier interface {
	// Submit takes a sample and copies what it needs of it. It does not block:
	// false means that the sample was shed.
	Submit(s *flow.Sample) bool

	// Forget drops what is known of a flow that has ended.
	Forget(id flow.ID)

	// Run classifies what Submit took until the context ends, and then returns
	// nil. It calls store with the decisions, one call at a time; the slice is
	// valid during the call only.
	Run(ctx context.Context, store func([]flow.Decision)) error

	// Load reads the models that are to take the place of those in use, and
	// checks them as far as it can without using them.
	Load(ctx context.Context) (Models, error)

	// Health returns the models in use and how the classifier is doing.
	Health() Health
}

// Models is a set of loaded models.
type Models struct {
	Names  []string // for the log
	Labels []string // beyond flow.Vocabulary; the label table of every port must have them

	// Use replaces the models in use by these, all of them or, with an error,
	// none. Flows without a final verdict start again without evidence.
	Use func() error
}

// Health is what a classifier says of itself.
type Health struct {
	Models    []string // names of the models in use
	BatchMean float64  // samples in a batch
	LastError string   // of the newest batch that failed; "" if none did
}

// Port is what the agent needs of one interface. [NewPort] makes one of an
// attached interface.
type Port struct {
	Name   string // of the interface, for messages
	Source Source
	Table  Table
	Labels []string // labels that the kernel's label table has

	// Gone reports whether the interface was removed, so that no packet can come
	// any more.
	Gone func() (bool, error)

	// Publish stores the agent's statistics where "dpclass status" reads them.
	Publish func(loader.AgentStats) error
}

// port is a Port at work.
type port struct {
	Port
	index int // flow.ID.Iface

	samples, verdicts, shed, batches atomic.Uint64

	mu       sync.Mutex
	resample []flow.ID // flows whose sample was shed

	decisions []flow.Decision // of the batch being stored; only store uses it
	rates     rates           // only publish uses it
	gone      bool            // only checkPorts uses it
}

// submit hands a sample to the classifier and notes the flow of a sample that
// was shed.
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

// takeShed returns the flows whose sample was shed since the last call.
func (p *port) takeShed() []flow.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := p.resample
	p.resample = nil
	return ids
}
