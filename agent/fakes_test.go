// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// These tests run in synctest bubbles: time is that of the bubble, and
// synctest.Wait returns once every goroutine waits. So ticks are exact.

var errTest = errors.New("test failure")

// journal is what happened, in order.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, fmt.Sprintf(format, args...))
}

// take returns the events since the last call.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	events := j.events
	j.events = nil
	return events
}

// get reads what the agent's goroutines change under the lock.
func get[T any](lock sync.Locker, value *T) T {
	lock.Lock()
	defer lock.Unlock()
	return *value
}

// fakePort is the Source and the Table of an interface.
type fakePort struct {
	name    string
	journal *journal
	samples chan flow.Sample
	source  func(ctx context.Context) error // what ends Samples; nil: the context

	mu          sync.Mutex
	resampleAll func() error // nil: it succeeds
	applyErr    error
	publishErr  error
	gone        error
	released    bool
	again       func(context.Context) (Port, error) // nil: it does not return
	withdrawn   []flow.Task
	goneErr     error
	stale       int
	applied     []flow.Decision
	resampled   []flow.ID
	kept        []flow.Sample
	keepErr     error
	answers     []flow.DNSAnswer // what Answers delivers
	all         int              // calls of ResampleAll
	sweeps      int
	ended       []flow.Record // for the next sweep
	published   []loader.AgentStats
}

// with changes the fake while the agent uses it.
func (p *fakePort) with(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// last returns the statistics published last.
func (p *fakePort) last() loader.AgentStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.published) == 0 {
		return loader.AgentStats{}
	}
	return p.published[len(p.published)-1]
}

func (p *fakePort) Samples(ctx context.Context, fn func(*flow.Sample)) error {
	p.journal.add("%s: samples", p.name)
	defer p.journal.add("%s: samples end", p.name)
	if p.source != nil {
		return p.source(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-p.samples:
			fn(&s)
		}
	}
}

func (p *fakePort) Apply(decisions []flow.Decision) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.journal.add("%s: apply", p.name)
	if p.released {
		panic("a table is used after Release")
	}
	if p.applyErr != nil {
		return 0, p.applyErr
	}
	p.applied = append(p.applied, decisions...)
	return p.stale, nil
}

func (p *fakePort) Keep(samples []flow.Sample) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range samples {
		s.Packet = slices.Clone(s.Packet)
		p.kept = append(p.kept, s)
	}
	return p.keepErr
}

func (p *fakePort) Answers(ctx context.Context, fn func(*flow.DNSAnswer)) error {
	p.mu.Lock()
	answers := p.answers
	p.mu.Unlock()
	for i := range answers {
		fn(&answers[i])
	}
	<-ctx.Done()
	return nil
}

func (p *fakePort) Resample(ids []flow.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resampled = append(p.resampled, ids...)
	return nil
}

func (p *fakePort) ResampleAll() error {
	p.journal.add("%s: resample all", p.name)
	p.mu.Lock()
	p.all++
	fn := p.resampleAll
	p.mu.Unlock()
	if fn != nil {
		return fn()
	}
	return nil
}

func (p *fakePort) Withdraw(task flow.Task) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.journal.add("%s: withdraw %s", p.name, task)
	p.withdrawn = append(p.withdrawn, task)
	return nil
}

func (p *fakePort) Sweep() ([]flow.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.journal.add("%s: sweep", p.name)
	if p.released {
		panic("a table is used after Release")
	}
	p.sweeps++
	ended := p.ended
	p.ended = nil
	return ended, nil
}

func (p *fakePort) port() Port {
	return Port{
		Name: p.name, Source: p, DNS: p, Table: p, Labels: append([]string{"web"}, flow.Vocabulary...), Samples: 8,
		Lost: func() (error, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.gone, p.goneErr
		},
		Release: func() error {
			p.journal.add("%s: release", p.name)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.released = true
			return nil
		},
		Again: p.again,
		Publish: func(s loader.AgentStats) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.published = append(p.published, s)
			return p.publishErr
		},
	}
}

// fakeClassifier hands out the decisions that the test sends.
type fakeClassifier struct {
	journal   *journal
	decisions chan []flow.Decision
	run       func(ctx context.Context, store func([]flow.Decision)) error // nil: until the context ends

	mu        sync.Mutex
	full      bool // Submit sheds
	submitted []flow.ID
	forgotten []flow.ID
	answers   []flow.DNSAnswer
	models    Models
	loadErr   error
	health    Health
}

func (c *fakeClassifier) with(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *fakeClassifier) Submit(s *flow.Sample) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full {
		return false
	}
	c.submitted = append(c.submitted, s.ID)
	return true
}

func (c *fakeClassifier) Answer(a *flow.DNSAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, *a)
}

func (c *fakeClassifier) Forget(id flow.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten = append(c.forgotten, id)
}

func (c *fakeClassifier) Run(ctx context.Context, store func([]flow.Decision)) error {
	c.journal.add("classifier: run")
	defer c.journal.add("classifier: end")
	if c.run != nil {
		return c.run(ctx, store)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case decisions := <-c.decisions:
			store(decisions)
		}
	}
}

func (c *fakeClassifier) Load(context.Context) (Models, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.models, c.loadErr
}

func (c *fakeClassifier) Health() Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health
}

// fakeSink keeps the records it gets.
type fakeSink struct {
	name     string
	write    func(ctx context.Context, n int) error // n counts the calls from 1; nil: it succeeds
	closeErr error

	mu     sync.Mutex
	calls  int
	got    []uint16 // source ports
	closes int
}

func (s *fakeSink) Name() string { return s.name }

func (s *fakeSink) Write(ctx context.Context, r flow.Record) error {
	s.mu.Lock()
	s.calls++
	n := s.calls
	s.mu.Unlock()
	if s.write != nil {
		if err := s.write(ctx, n); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, r.SrcPort)
	return nil
}

func (s *fakeSink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes++
	return s.closeErr
}

func (s *fakeSink) records() []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// logBuffer keeps the log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

// count returns how often the log has the text.
func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), text)
}

// rig is an agent with fakes.
type rig struct {
	t          *testing.T
	journal    journal
	log        logBuffer
	ports      []*fakePort
	classifier *fakeClassifier // nil: none
	config     Config
	reload     chan struct{}

	agent  *Agent
	cancel context.CancelFunc
	result chan error
}

// newRig makes a rig with a port for each name and a classifier. Call it in a bubble.
func newRig(t *testing.T, names ...string) *rig {
	r := &rig{t: t, reload: make(chan struct{}), result: make(chan error, 1)}
	r.classifier = &fakeClassifier{journal: &r.journal, decisions: make(chan []flow.Decision), health: Health{Models: []string{"old"}}}
	for _, name := range names {
		r.ports = append(r.ports, &fakePort{name: name, journal: &r.journal, samples: make(chan flow.Sample)})
	}
	return r
}

// start runs the agent and waits until it waits.
func (r *rig) start() {
	r.config.Log = slog.New(slog.NewTextHandler(&r.log, nil))
	r.config.Reload = r.reload
	if r.classifier != nil {
		r.config.Classifier = r.classifier
	}
	for _, p := range r.ports {
		r.config.Ports = append(r.config.Ports, p.port())
	}
	r.agent = New(r.config)
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel = cancel
	r.t.Cleanup(cancel)
	go func() { r.result <- r.agent.Run(ctx) }()
	synctest.Wait()
}

// stop ends Run and fails the test if it returns an error.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.result; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

// end stops and closes the agent and fails the test on an error.
func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if err := r.agent.Close(r.t.Context()); err != nil {
		r.t.Errorf("Close: %v", err)
	}
}

// id names flow n of port iface.
func id(iface, n int) flow.ID {
	key, _ := flow.MakeKey(flow.TCP, netip.MustParseAddrPort(fmt.Sprintf("10.0.0.2:%d", n)), netip.MustParseAddrPort("10.0.0.1:80"), 0)
	return flow.ID{Iface: iface, Key: key, Generation: 7}
}

// ended returns the records of flows, numbered by their source ports.
func ended(numbers ...int) []flow.Record {
	var records []flow.Record
	for _, n := range numbers {
		records = append(records, flow.Record{
			Src: netip.MustParseAddr("10.0.0.2"), SrcPort: uint16(n), Dst: netip.MustParseAddr("10.0.0.1"), DstPort: 80,
			Proto: "tcp", Live: &flow.Live{Generation: 7},
		})
	}
	return records
}
