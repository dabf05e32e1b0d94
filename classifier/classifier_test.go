// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// run runs the classifier until stop is called. verdicts are the newest ones.
func run(t *testing.T, c *Classifier) (verdicts func() map[flow.ID]flow.Decision, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var mu sync.Mutex
	newest := map[flow.ID]flow.Decision{}
	go func() {
		done <- c.Run(ctx, func(decisions []flow.Decision) {
			mu.Lock()
			defer mu.Unlock()
			for _, d := range decisions {
				if newest[d.ID].Settled {
					t.Errorf("flow %v: %+v after the final verdict", d.ID, d)
				}
				newest[d.ID] = d
			}
		})
	}()
	verdicts = func() map[flow.ID]flow.Decision {
		mu.Lock()
		defer mu.Unlock()
		all := map[flow.ID]flow.Decision{}
		for id, d := range newest {
			all[id] = d
		}
		return all
	}
	return verdicts, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// settle waits until all that was submitted has been dealt with.
func settle(t *testing.T, c *Classifier) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		s := c.Stats()
		if s.Classified+s.Late+s.Shed == s.Samples {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("samples are left after a minute: %+v", s)
		}
		time.Sleep(time.Millisecond)
	}
}

// Live flows get the verdicts that the same packets get offline, whatever the
// batches, the workers and the order of the flows.
func TestLiveIsOffline(t *testing.T) {
	const flows, packets = 150, 7
	offline := open(t, Options{})
	want := map[flow.ID]flow.Decision{}
	for n := range flows {
		var vectors [][]byte
		for i := range 1 + n%packets {
			vectors = append(vectors, vectorOf(sample(n, i)))
		}
		v, samples, err := offline.Verdict(vectors)
		if err != nil {
			t.Fatal(err)
		}
		want[flowID(n)] = flow.Decision{ID: flowID(n), Verdicts: v, Settled: v.Final(), Samples: samples}
	}
	for _, o := range []Options{{Workers: 1, Batch: 1}, {Workers: 3, Batch: 5}, {Workers: 1, Batch: 32, Delay: 2 * time.Millisecond}} {
		c := open(t, o)
		verdicts, stop := run(t, c)
		rng := rand.New(rand.NewPCG(1, 1))
		next := make([]int, flows)
		for left := flows; left > 0; {
			n := rng.IntN(flows)
			if next[n] > n%packets {
				continue
			}
			if !c.Submit(sample(n, next[n])) {
				time.Sleep(time.Millisecond)
				continue
			}
			if next[n]++; next[n] > n%packets {
				left--
			}
		}
		settle(t, c)
		stop()
		got := verdicts()
		if len(got) != flows {
			t.Errorf("%d workers, batch %d: %d flows have a verdict, want %d", o.Workers, o.Batch, len(got), flows)
		}
		for id, w := range want {
			g := got[id]
			same := func(a, b flow.Verdict) bool {
				return a.Label == b.Label && a.Source == b.Source && a.Model == b.Model && math.Abs(a.Confidence-b.Confidence) < 1e-3
			}
			if !same(g.Verdicts[flow.Category], w.Verdicts[flow.Category]) || !same(g.Verdicts[flow.App], w.Verdicts[flow.App]) || g.Settled != w.Settled || g.Samples != w.Samples {
				t.Errorf("%d workers, batch %d, flow %v:\nlive    %+v\noffline %+v", o.Workers, o.Batch, id, g, w)
			}
		}
		if s := c.Stats(); s.Failures > 0 || s.Verdicts == 0 || s.BatchMean < 1 {
			t.Errorf("%+v", s)
		}
	}
}

// What a packet's batch is has next to no effect on its probabilities: a flow's
// verdict does not hang on chance.
func TestBatchIndependence(t *testing.T) {
	for _, name := range Shipped() {
		t.Run(name, func(t *testing.T) {
			m, err := LoadModel(name)
			if err != nil {
				t.Fatal(err)
			}
			c := open(t, Options{Models: []*Model{m}})
			r := newRunner(c.engine, 32)
			defer r.close()
			worst := 0.0
			var first [32][flow.NumTasks][]float32
			for _, n := range []int{1, 2, 3, 5, 8, 13, 31, 32} {
				for i := range n {
					copy(r.vector(i)[:], vectorOf(sample(i, i%5)))
				}
				if err := r.run(n); err != nil {
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
		if labels, rows := c.Labels(task), p.Of(task); labels == nil || len(rows) != 100 || len(rows[99]) != len(labels) {
			t.Fatalf("%s: %d labels, %d rows", task, len(labels), len(rows))
		}
	}
	part := p.Slice(40, 43)
	v, n := c.Decide(&part)
	w, m, err := c.Verdict(vectors[40:43])
	if err != nil {
		t.Fatal(err)
	}
	if n != m || v[flow.Category].Label != w[flow.Category].Label || v[flow.App].Label != w[flow.App].Label || v.Final() != w.Final() {
		t.Errorf("Decide gives %+v after %d, Verdict %+v after %d", v, n, w, m)
	}
	index, confidence := c.Likeliest(flow.Category, part.Category[:n])
	if label := c.Labels(flow.Category)[index]; v[flow.Category].Label != label && !c.Rejects(flow.Category, confidence) || confidence != v[flow.Category].Confidence {
		t.Errorf("likeliest is %q with %g, the verdict %+v", label, confidence, v[flow.Category])
	}
	if index, _ := c.Likeliest(flow.Category, nil); index != -1 {
		t.Errorf("the likeliest label of no rows is %d", index)
	}
	if _, err := c.Probabilities([][]byte{make([]byte, vector.Size-1)}); err == nil {
		t.Error("a vector of 1499 bytes was taken")
	}
	none, n := c.Decide(&Probabilities{})
	if none.Final() || none[flow.Category].Label != "" || n != 0 {
		t.Errorf("a flow without samples has the verdict %+v after %d", none, n)
	}
}

func TestShedIsCounted(t *testing.T) {
	c := open(t, Options{Workers: 1, Batch: 4, Queue: 16})
	taken := 0
	for n := range 40 {
		if c.Submit(sample(n, 0)) {
			taken++
		}
	}
	if s := c.Stats(); taken != 16 || s.Samples != 40 || s.Shed != 24 || s.Queued != 16 || s.Queue != 16 {
		t.Errorf("%d taken, %+v", taken, s)
	}
	verdicts, stop := run(t, c)
	settle(t, c)
	stop()
	if got := len(verdicts()); got != 16 {
		t.Errorf("%d flows have a verdict", got)
	}
}

// Submit, Forget, Stats, Swap and the offline functions all at once, for the
// race detector.
func TestSwapUnderLoad(t *testing.T) {
	c := open(t, Options{Workers: 2, Batch: 8})
	first := c.Models()
	verdicts, stop := run(t, c)
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
			if _, _, err := c.Verdict([][]byte{vectorOf(sample(1, 1)), vectorOf(sample(2, 2))}); err != nil {
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
	settle(t, c)
	stop()
	if len(verdicts()) == 0 {
		t.Error("no verdicts")
	}
}

func TestSwap(t *testing.T) {
	c := open(t, Options{Workers: 1})
	verdicts, stop := run(t, c)
	defer stop()
	for n := range 60 {
		c.Submit(sample(n, 0))
	}
	settle(t, c)
	before := verdicts()
	bad := writeModel(t, fitting().encode(), fittingManifest())
	m, err := LoadModel(bad)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, c.Swap([]*Model{m}), "test")
	if err := c.Swap(c.Models()); err != nil {
		t.Fatal(err)
	}
	for n := range 60 {
		c.Submit(sample(n, 0))
	}
	settle(t, c)
	for id, d := range verdicts() {
		if d.Samples != 1 || d.Settled != before[id].Settled {
			t.Errorf("flow %v: %+v, before the swap %+v", id, d, before[id])
		}
	}
}

func TestRefusedWhenRun(t *testing.T) {
	library := library(t)
	f := fitting()
	f.cast = true
	f.outputs[0].dims[1] = -1
	m, err := LoadModel(writeModel(t, f.encode(), fittingManifest()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Options{Library: library, Models: []*Model{m}})
	wantRefusal(t, err, `"test"`, "labels")

	manifest := fittingManifest()
	labels := make([]string, vector.Size)
	for i := range labels {
		labels[i] = fmt.Sprintf("label-%d", i)
	}
	manifest["labels"] = map[string]any{"category": labels}
	if m, err = LoadModel(writeModel(t, f.encode(), manifest)); err != nil {
		t.Fatal(err)
	}
	_, err = New(Options{Library: library, Models: []*Model{m}})
	wantRefusal(t, err, `"test"`, "softmax")
}

func TestRefusedOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no model is no error")
	}
	m := &Model{}
	for _, o := range []Options{{Models: []*Model{m}, Samples: 256}, {Models: []*Model{m}, MinConfidence: 2}, {Models: []*Model{m}, MinConfidence: math.NaN()}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is no error", o)
		}
	}
}
