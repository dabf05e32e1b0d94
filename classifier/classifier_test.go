// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault/faulttest"
	"github.com/dpclass/dpclass/internal/onnxtest"
)

// running is a classifier that runs.
type running struct {
	*Classifier
	cancel context.CancelFunc
	done   chan error

	mu     sync.Mutex
	newest map[flow.ID]flow.Decision
}

// run runs the classifier until stop is called.
func run(t *testing.T, c *Classifier) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Classifier: c, cancel: cancel, done: make(chan error, 1), newest: map[flow.ID]flow.Decision{}}
	go func() {
		r.done <- c.Run(ctx, func(decisions []flow.Decision) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, d := range decisions {
				if r.newest[d.ID].Settled {
					t.Errorf("flow %v: %+v after the final verdict", d.ID, d)
				}
				r.newest[d.ID] = d
			}
		})
	}()
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// decision returns the newest decision on a flow.
func (r *running) decision(id flow.ID) (flow.Decision, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.newest[id]
	return d, ok
}

// submit submits a sample, again as long as it is shed.
func (r *running) submit(t *testing.T, s *flow.Sample) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !r.Submit(s); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the queue has been full for a minute")
		}
	}
}

// marks counts the markers of all tests: each is a flow of its own.
var marks atomic.Uint32

// settle waits until all that was submitted has been dealt with: a worker takes samples
// in their order, so it has come to a marker after everything before it.
func (r *running) settle(t *testing.T) {
	t.Helper()
	for _, s := range r.shards {
		marker := sample(0, 0)
		for marker.ID.Iface = 1; ; {
			marker.ID.Generation = marks.Add(1)
			if r.shard(marker.ID) == s {
				break
			}
		}
		r.submit(t, marker)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if _, ok := r.decision(marker.ID); ok {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("samples are left after a minute; %+v", r.Stats())
			}
		}
	}
}

// verdicts returns the newest decision on each flow.
func (r *running) verdicts() map[flow.ID]flow.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[flow.ID]flow.Decision{}
	for id, d := range r.newest {
		if id.Iface == 0 { // not a marker
			all[id] = d
		}
	}
	return all
}

// offline returns the verdicts on a flow of these vectors, as captures get them.
func offline(t *testing.T, c *Classifier, vectors ...[]byte) (flow.Verdicts, int) {
	t.Helper()
	p, err := c.Probabilities(vectors)
	if err != nil {
		t.Fatal(err)
	}
	v, _, samples := c.Decide(&p, nil)
	return v, samples
}

// Live flows get the verdicts that the same packets get offline, whatever the
// batches, the workers and the order of the flows.
func TestLiveIsOffline(t *testing.T) {
	const flows, packets = 150, 7
	other := open(t, Options{Evidence: EvidenceModel})
	want := map[flow.ID]flow.Decision{}
	for n := range flows {
		var vectors [][]byte
		for i := range 1 + n%packets {
			vectors = append(vectors, vectorOf(sample(n, i)))
		}
		v, samples := offline(t, other, vectors...)
		want[flowID(n)] = flow.Decision{ID: flowID(n), Verdicts: v, Settled: v.Final(), Samples: samples}
	}
	for _, o := range []Options{{Workers: 1, Batch: 1}, {Workers: 3, Batch: 5}, {Workers: 1, Batch: 32, Delay: 2 * time.Millisecond}} {
		o.Evidence = EvidenceModel
		c := open(t, o)
		live := run(t, c)
		rng := rand.New(rand.NewPCG(1, 1))
		next := make([]int, flows)
		for left := flows; left > 0; {
			n := rng.IntN(flows)
			if next[n] > n%packets {
				continue
			}
			live.submit(t, sample(n, next[n]))
			if next[n]++; next[n] > n%packets {
				left--
			}
		}
		live.settle(t)
		live.stop(t)
		got := live.verdicts()
		if len(got) != flows {
			t.Errorf("%d workers, batch %d: %d flows have a verdict, want %d", o.Workers, o.Batch, len(got), flows)
		}
		for id, w := range want {
			g := got[id]
			same := func(a, b flow.Verdict) bool {
				return a.Label == b.Label && a.Source == b.Source && a.Model == b.Model && a.Final == b.Final && math.Abs(a.Confidence-b.Confidence) < 1e-3
			}
			if !same(g.Verdicts[flow.Category], w.Verdicts[flow.Category]) || !same(g.Verdicts[flow.App], w.Verdicts[flow.App]) || g.Settled != w.Settled || g.Samples != w.Samples {
				t.Errorf("%d workers, batch %d, flow %v:\nlive    %+v\noffline %+v", o.Workers, o.Batch, id, g, w)
			}
		}
		if s := c.Stats(); s.LastError != "" || s.BatchMean < 1 || s.BatchMean > float64(o.Batch) {
			t.Errorf("batches of %d: %+v", o.Batch, s)
		}
	}
}

// The other packets of a batch have next to no effect on a packet's probabilities: a
// flow's verdict does not depend on chance.
func TestBatchIndependence(t *testing.T) {
	for _, name := range model.Shipped(paper) {
		t.Run(name, func(t *testing.T) {
			c := open(t, Options{Models: []*model.Model{load(t, name)}})
			r := newRunner(c.engine, 32)
			defer r.close()
			worst := 0.0
			var first [32][flow.NumTasks][]float32
			for _, n := range []int{1, 2, 3, 5, 8, 13, 31, 32} {
				for i := range n {
					copy(r.vector(i)[:], vectorOf(sample(i, i%5)))
				}
				if err := r.run(n, batchLimit); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					for task, row := range r.row(i) {
						if first[i][task] == nil {
							first[i][task] = slices.Clone(row)
						}
						for j, p := range row {
							worst = max(worst, math.Abs(float64(p-first[i][task][j])))
						}
					}
				}
			}
			t.Logf("the largest difference is %.2g", worst)
			if worst > 1e-4 {
				t.Errorf("probabilities differ by %g from batch to batch", worst)
			}
		})
	}
}

func TestOffline(t *testing.T) {
	c := open(t, Options{})
	var vectors [][]byte
	for n := range 100 {
		vectors = append(vectors, vectorOf(sample(n, 0)))
	}
	p, err := c.Probabilities(vectors)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range flow.Tasks {
		if labels, rows := c.Labels(task), p[task]; labels == nil || len(rows) != 100 || len(rows[99]) != len(labels) {
			t.Fatalf("%s: %d labels, %d rows", task, len(labels), len(rows))
		}
	}
	// One batch or several: the rows are those of their vectors.
	part := p.Slice(40, 43)
	few, err := c.Probabilities(vectors[40:43])
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range flow.Tasks {
		for i, row := range few[task] {
			for j, probability := range row {
				if math.Abs(float64(probability-part[task][i][j])) > 1e-4 {
					t.Errorf("%s of vector %d: %v, in another batch %v", task, 40+i, row, part[task][i])
				}
			}
		}
	}
	var joined Probabilities
	joined.Append(p.Slice(40, 41))
	joined.Append(p.Slice(41, 43))
	v, _, n := c.Decide(&part, nil)
	if w, _, m := c.Decide(&joined, nil); n != m || v != w {
		t.Errorf("%+v after %d, of the same rows one by one %+v after %d", v, n, w, m)
	}
	if none, err := c.Probabilities(nil); err != nil || len(none[flow.Category]) != 0 {
		t.Errorf("no vectors: %v, %v", none, err)
	}
	if _, err := c.Probabilities([][]byte{make([]byte, 1499)}); err == nil {
		t.Error("a vector of 1499 bytes was taken")
	}
	none, _, n := c.Decide(&Probabilities{}, nil)
	if none.Final() || none[flow.Category].Label != "" || n != 0 {
		t.Errorf("a flow without samples has the verdict %+v after %d", none, n)
	}
}

// The evaluation scores the likeliest label of all rows, whatever was final before, and
// rejects as the verdicts do.
func TestLikeliest(t *testing.T) {
	c := &Classifier{engine: &engine{decider: testDecider(true)}}
	p := Probabilities{
		flow.Category: {{.98, .01, .01}, {.001, .998, .001}, {.001, .998, .001}},
		flow.App:      {{.5, .5}, {.55, .45}, {.5, .5}},
	}
	if v, _, n := c.Decide(&p, nil); n != 3 || v[flow.Category].Label != "chat" || !v[flow.Category].Final || v[flow.App].Final {
		t.Errorf("%+v after %d, want chat, final after the first sample", v, n)
	}
	if index, _ := c.Likeliest(flow.Category, p[flow.Category]); index != 1 {
		t.Errorf("the likeliest label is %d, want that of all three samples", index)
	}
	index, confidence := c.Likeliest(flow.App, p[flow.App])
	if v, _, _ := c.Decide(&p, nil); index != 0 || confidence != v[flow.App].Confidence {
		t.Errorf("the likeliest app is %d with %g, the verdict %+v", index, confidence, v[flow.App])
	}
	if !c.Rejects(flow.App, confidence) || c.Rejects(flow.App, .6) {
		t.Errorf("the threshold is .6: confidence %g must be rejected, .6 not", confidence)
	}
	c.engine.decider.samples = 3
	if v, _, _ := c.Decide(&p, nil); v[flow.App].Label != flow.Unknown || v[flow.App].Confidence != confidence {
		t.Errorf("app %+v, want unknown with %g", v[flow.App], confidence)
	}
	if index, _ := c.Likeliest(flow.App, nil); index != -1 {
		t.Errorf("the likeliest label of no rows is %d", index)
	}
	c.engine.decider.heads[flow.App] = nil
	if index, _ := c.Likeliest(flow.App, p[flow.App]); index != -1 {
		t.Errorf("the likeliest label of a task without a model is %d", index)
	}
}

func TestShed(t *testing.T) {
	c := open(t, Options{Workers: 1, Batch: 4, Queue: 16})
	for n := range 40 {
		if taken := c.Submit(sample(n, 0)); taken != (n < 16) {
			t.Errorf("sample %d of a queue of 16: taken %t", n, taken)
		}
	}
	if got := c.Stats().Samples; got != 40 {
		t.Errorf("%d samples were submitted, want 40", got)
	}
	live := run(t, c)
	live.settle(t)
	live.stop(t)
	if got := len(live.verdicts()); got != 16 {
		t.Errorf("%d flows have a verdict", got)
	}
}

// Submit, Forget, Stats, Swap and the offline functions all at once, for the
// race detector.
func TestSwapUnderLoad(t *testing.T) {
	c := open(t, Options{Workers: 2, Batch: 8})
	first := c.Models()
	live := run(t, c)
	var group sync.WaitGroup
	for part := range 2 {
		group.Go(func() {
			for i := range 600 {
				n := part*1000 + i%200
				c.Submit(sample(n, i/200))
				if i%50 == 0 {
					c.Forget(flowID(n + 5000))
					c.Stats()
				}
			}
		})
	}
	group.Go(func() {
		for range 3 {
			if _, err := c.Probabilities([][]byte{vectorOf(sample(1, 1)), vectorOf(sample(2, 2))}); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		if err := c.Swap(first); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	live.submit(t, sample(1, 3))
	live.settle(t)
	live.stop(t)
	if len(live.verdicts()) == 0 {
		t.Error("no verdicts")
	}
}

func TestSwap(t *testing.T) {
	c := open(t, Options{Workers: 1, Samples: 2})
	live := run(t, c)
	defer live.stop(t)
	const flows, settled = 60, 30 // the first ones get both of their samples
	for n := range flows {
		live.submit(t, sample(n, 0))
		if n < settled {
			live.submit(t, sample(n, 1))
		}
	}
	live.settle(t)
	before := live.verdicts()
	bad := onnxtest.Fitting()
	bad.Outputs[0].Raw = true
	faulttest.Want(t, c.Swap([]*model.Model{loadNetwork(t, bad, "chat", "voip", "email")}), `"test"`, "probabilities")
	if err := c.Swap(nil); err == nil {
		t.Error("a swap to no model is no error")
	}
	if got := c.Models()[0].Name; got != model.Default {
		t.Errorf("after a failed swap the model is %q", got)
	}
	if err := c.Swap([]*model.Model{loadNetwork(t, onnxtest.Fitting(), "chat", "voip", "email")}); err != nil {
		t.Fatal(err)
	}
	for n := range flows {
		live.submit(t, sample(n, 0))
	}
	live.settle(t)
	for n := range flows {
		d, _ := live.decision(flowID(n))
		was := before[flowID(n)]
		category, old := d.Verdicts[flow.Category], was.Verdicts[flow.Category]
		switch {
		case was.Settled != (n < settled):
			t.Errorf("flow %d: settled %t before the swap", n, was.Settled)
		case n < settled && d != was:
			t.Errorf("flow %d: %+v, before the swap %+v", n, d, was)
		case n >= settled && old.Final && category != old:
			t.Errorf("flow %d: category %+v, before the swap %+v", n, category, old)
		case n >= settled && !old.Final && (category.Model != "test" || d.Samples != 1):
			t.Errorf("flow %d: %+v, want it by the new model from one sample", n, d)
		}
	}
}

// endless returns a network that never returns if a packet begins with the byte.
func endless(first byte) onnxtest.Network {
	network := onnxtest.Fitting()
	network.Outputs[0].Endless = first
	return network
}

// A network that never returns is stopped at the end of Run, and its results are not
// stored. Close frees it.
func TestEndlessNetwork(t *testing.T) {
	c := open(t, Options{Workers: 1, Models: []*model.Model{loadNetwork(t, endless(0x45), "chat", "voip", "email")}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- c.Run(ctx, func(decisions []flow.Decision) { t.Errorf("decisions %+v", decisions) })
	}()
	if !c.Submit(sample(1, 0)) {
		t.Fatal("shed")
	}
	for running := false; !running; time.Sleep(time.Millisecond) {
		s := c.shards[0]
		s.mu.Lock()
		r := s.current
		s.mu.Unlock()
		if r != nil {
			r.mu.Lock()
			running = r.running
			r.mu.Unlock()
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run does not return")
	}
	if s := c.Stats(); s.LastError != "" {
		t.Errorf("the end is no error of a batch: %+v", s)
	}
}

// A batch that takes too long is dropped, and the next one is classified.
func TestBatchLimit(t *testing.T) {
	c := open(t, Options{Workers: 1, Models: []*model.Model{loadNetwork(t, endless(0x45), "chat", "voip", "email")}})
	r := newRunner(c.engine, 2)
	defer r.close()
	r.vector(0)[0] = 0x45
	if err := r.run(1, 50*time.Millisecond); !errors.Is(err, ort.ErrStopped) || !strings.Contains(err.Error(), `"test"`) {
		t.Errorf("an endless batch: %v", err)
	}
	r.vector(0)[0] = 0x60
	if err := r.run(1, time.Minute); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// What cannot be seen before a model runs is seen when New runs it.
func TestRefusedWhenRun(t *testing.T) {
	library := library(t)
	network := onnxtest.Fitting()
	network.Outputs[0].Raw = true
	for name, test := range map[string]struct {
		labels []string
		want   string
	}{
		"width":         {[]string{"chat", "voip"}, "labels"},
		"probabilities": {[]string{"chat", "voip", "email"}, "softmax"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Options{Library: library, Models: []*model.Model{loadNetwork(t, network, test.labels...)}})
			faulttest.Want(t, err, `"test"`, test.want)
		})
	}
}

// A network that does not fit its manifest is refused when it is opened, and the error
// names its file.
func TestRefusedNetwork(t *testing.T) {
	m := loadNetwork(t, onnxtest.Fitting(), "chat", "voip")
	_, err := New(Options{Library: library(t), Models: []*model.Model{m}})
	faulttest.Want(t, err, `"test"`, m.Path, "3 wide", "2 labels")
}

func TestDefaultModel(t *testing.T) {
	c, err := New(Options{Library: library(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if models := c.Models(); len(models) != 1 || models[0].Name != model.Default {
		t.Errorf("without a model it runs %v", models)
	}
}

func TestRefusedOptions(t *testing.T) {
	m := &model.Model{}
	for _, o := range []Options{{Models: []*model.Model{m}, Samples: 256}, {Models: []*model.Model{m}, MinConfidence: 2}, {Models: []*model.Model{m}, MinConfidence: math.NaN()}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is no error", o)
		}
	}
}
