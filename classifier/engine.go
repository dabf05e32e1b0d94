// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/vector"
)

// engine is a set of models opened in ONNX Runtime. Its sessions are shared by
// all runners; the last one to be closed closes them.
type engine struct {
	nets    []net
	decider *decider
	users   atomic.Int32
}

// net is one opened model.
type net struct {
	model   *model.Model
	session *ort.Session // its outputs are those of the model's tasks, in their order
}

// newEngine opens the models. The caller holds the first use of the engine.
func newEngine(models []*model.Model, d *decider) (*engine, error) {
	e := &engine{decider: d}
	e.users.Store(1)
	for _, m := range models {
		outputs := make([]ort.Output, 0, len(m.Task))
		for _, task := range m.Task {
			outputs = append(outputs, ort.Output{Name: task.String(), Width: len(m.Labels[task])})
		}
		session, err := ort.NewSession(m.ONNX(), outputs)
		if err != nil {
			e.release()
			return nil, fmt.Errorf("model %s: %w", modelName(m), err)
		}
		e.nets = append(e.nets, net{model: m, session: session})
	}
	return e, nil
}

// modelName names a model in an error, with its file if it has one.
func modelName(m *model.Model) string {
	if m.Path == "" {
		return fmt.Sprintf("%q", m.Name)
	}
	return fmt.Sprintf("%q (%s)", m.Name, m.Path)
}

func (e *engine) acquire() { e.users.Add(1) }

// release gives one use back. An error of closing a session that nothing uses
// any more has no one to act on it.
func (e *engine) release() {
	if e.users.Add(-1) > 0 {
		return
	}
	for _, n := range e.nets {
		_ = n.session.Close()
	}
}

// runner runs the models of an engine over one batch at a time. Its buffers are
// made once: the input that all models read, the output rows of each task, and
// for each batch size a binding of each model to them.
type runner struct {
	engine  *engine
	batch   int
	input   []byte // batch vectors
	outputs [flow.NumTasks][]float32
	width   [flow.NumTasks]int
	bound   [][]*ort.Binding // by net, then by batch size - 1; made when first used
	brake   *ort.Brake       // made when first used

	mu      sync.Mutex
	running bool // the brake acts on a run under way
}

// How long a batch may take. The largest of the paper's networks takes a tenth of a second
// for 32 packets; a network that contains an endless loop takes forever.
const (
	batchLimit = 30 * time.Second
	probeLimit = 10 * time.Second // for two packets
)

func newRunner(e *engine, batch int) *runner {
	e.acquire()
	r := &runner{engine: e, batch: batch, input: make([]byte, batch*vector.Size)}
	for range e.nets {
		r.bound = append(r.bound, make([]*ort.Binding, batch))
	}
	for t, h := range e.decider.heads {
		if h != nil {
			r.width[t] = len(h.labels)
			r.outputs[t] = make([]float32, batch*r.width[t])
		}
	}
	return r
}

// vector returns the place of the batch's i-th vector.
func (r *runner) vector(i int) *[vector.Size]byte {
	return (*[vector.Size]byte)(r.input[i*vector.Size:])
}

// row returns the probabilities of the i-th vector for each task, nil where no
// model has the task. They hold until the next run.
func (r *runner) row(i int) (rows [flow.NumTasks][]float32) {
	for t, width := range r.width {
		if width > 0 {
			rows[t] = r.outputs[t][i*width : (i+1)*width : (i+1)*width]
		}
	}
	return rows
}

// run runs the first n vectors through every model. It fails if that takes longer than
// the limit.
func (r *runner) run(n int, limit time.Duration) error {
	if r.brake == nil {
		var err error
		if r.brake, err = ort.NewBrake(); err != nil {
			return err
		}
	}
	r.setRunning(true)
	timer := time.AfterFunc(limit, r.stop)
	defer func() {
		timer.Stop()
		r.setRunning(false)
		r.brake.Release()
	}()
	began := time.Now()
	for i, net := range r.engine.nets {
		bound := r.bound[i][n-1]
		if bound == nil {
			var err error
			if bound, err = r.bind(net, n); err != nil {
				return fmt.Errorf("model %s: %w", modelName(net.model), err)
			}
			r.bound[i][n-1] = bound
		}
		err := bound.Run(r.brake)
		if errors.Is(err, ort.ErrStopped) {
			err = fmt.Errorf("%w after %s", err, time.Since(began).Round(100*time.Millisecond))
		}
		if err != nil {
			return fmt.Errorf("model %s: batch of %d: %w", modelName(net.model), n, err)
		}
	}
	return nil
}

// stop stops the run under way, if there is one. It may be called from any goroutine.
func (r *runner) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		r.brake.Stop()
	}
}

func (r *runner) setRunning(running bool) {
	r.mu.Lock()
	r.running = running
	r.mu.Unlock()
}

// bind binds a model to the runner's buffers, for batches of n.
func (r *runner) bind(net net, n int) (*ort.Binding, error) {
	outputs := make([][]float32, 0, len(net.model.Task))
	for _, task := range net.model.Task {
		outputs = append(outputs, r.outputs[task])
	}
	return net.session.Bind(n, r.input, outputs)
}

// close frees the runner.
func (r *runner) close() {
	for _, bindings := range r.bound {
		for _, bound := range bindings {
			if bound != nil {
				bound.Close()
			}
		}
	}
	if r.brake != nil {
		r.brake.Close()
	}
	r.engine.release()
}

// probe runs one batch and checks that rows of probabilities come out, as many as the
// manifests have labels.
func (r *runner) probe() error {
	const n = 2
	for i := range n {
		v := r.vector(i)
		for j := range v {
			v[j] = byte(i * (j + 7) * 31)
		}
	}
	err := r.run(n, probeLimit)
	if errors.Is(err, ort.ErrStopped) {
		return fault.Advise(err, "it must return within %s: export it without loops", probeLimit)
	}
	if err != nil {
		return fault.Advise(err, "its outputs must be as wide as its manifest has labels: list one label for each output, or export it again")
	}
	for i := range n {
		for t, row := range r.row(i) {
			if row == nil {
				continue
			}
			sum, low := 0.0, 0.0
			for _, p := range row {
				sum += float64(p)
				low = min(low, float64(p))
			}
			// Written so that NaN fails too.
			if !(math.Abs(sum-1) < 0.02 && low > -0.001) {
				return fault.Advise(fmt.Errorf("model %q: its output %q does not hold probabilities: they sum to %.3g",
					r.engine.decider.heads[t].model, flow.Tasks[t], sum), "export it with a softmax at the end of each output")
			}
		}
	}
	return nil
}
