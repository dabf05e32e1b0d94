// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync/atomic"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/dpclass/dpclass/flow"
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
	model   *Model
	session *ort.DynamicAdvancedSession
}

// newEngine opens the models. The caller holds the first use of the engine.
func newEngine(models []*Model, d *decider) (*engine, error) {
	e := &engine{decider: d}
	e.users.Store(1)
	for _, m := range models {
		session, err := openSession(m)
		if err != nil {
			e.release()
			return nil, fmt.Errorf("model %q: ONNX Runtime %s refuses it: %w\nexport it again with an operator set that this release has", m.Name, ort.GetVersion(), oneLine(err))
		}
		e.nets = append(e.nets, net{model: m, session: session})
	}
	return e, nil
}

func openSession(m *Model) (session *ort.DynamicAdvancedSession, err error) {
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, options.Destroy()) }()
	// One thread for each session: the workers are the parallelism.
	for _, set := range []func() error{
		func() error { return options.SetIntraOpNumThreads(1) },
		func() error { return options.SetInterOpNumThreads(1) },
		func() error { return options.SetGraphOptimizationLevel(ort.GraphOptimizationLevelEnableAll) },
		func() error { return options.SetLogSeverityLevel(ort.LoggingLevelFatal) },
	} {
		if err := set(); err != nil {
			return nil, err
		}
	}
	outputs := make([]string, 0, len(m.Task))
	for _, task := range m.Task {
		outputs = append(outputs, task.String())
	}
	return ort.NewDynamicAdvancedSessionWithONNXData(m.data, []string{inputName}, outputs, options)
}

func (e *engine) acquire() { e.users.Add(1) }

// release gives one use back. An error of closing a session that nothing uses
// any more has no one to act on it.
func (e *engine) release() {
	if e.users.Add(-1) > 0 {
		return
	}
	for _, n := range e.nets {
		_ = n.session.Destroy()
	}
}

// runner runs the models of an engine over one batch at a time. Its buffers are
// made once: the input that all models read, the output rows of each task, and
// for each batch size the tensors over them.
type runner struct {
	engine  *engine
	batch   int
	input   []byte // batch vectors
	outputs [flow.NumTasks][]float32
	width   [flow.NumTasks]int
	bound   [][]*ort.IoBinding // by net, then by batch size - 1; made when first used
	tensors []ort.Value
	pins    runtime.Pinner
}

func newRunner(e *engine, batch int) *runner {
	e.acquire()
	r := &runner{engine: e, batch: batch, input: make([]byte, batch*vector.Size)}
	// The tensors keep the addresses on the C side.
	r.pins.Pin(&r.input[0])
	for range e.nets {
		r.bound = append(r.bound, make([]*ort.IoBinding, batch))
	}
	for i := range flow.Tasks {
		if h := e.decider.heads[i]; h != nil {
			r.width[i] = len(h.labels)
			r.outputs[i] = make([]float32, batch*r.width[i])
			r.pins.Pin(&r.outputs[i][0])
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

// run runs the first n vectors through every model.
func (r *runner) run(n int) error {
	for i, net := range r.engine.nets {
		binding := r.bound[i][n-1]
		if binding == nil {
			var err error
			if binding, err = r.bind(net, n); err != nil {
				return fmt.Errorf("model %q: %w", net.model.Name, err)
			}
			r.bound[i][n-1] = binding
		}
		if err := net.session.RunWithBinding(binding); err != nil {
			return fmt.Errorf("model %q: batch of %d: %w", net.model.Name, n, oneLine(err))
		}
	}
	return nil
}

// bind makes the tensors for batches of n over the runner's buffers.
func (r *runner) bind(net net, n int) (*ort.IoBinding, error) {
	binding, err := net.session.CreateIoBinding()
	if err != nil {
		return nil, err
	}
	input, err := ort.NewTensor(ort.NewShape(int64(n), vector.Size), r.input[:n*vector.Size])
	if err != nil {
		return nil, errors.Join(err, binding.Destroy())
	}
	r.tensors = append(r.tensors, input)
	if err := binding.BindInput(inputName, input); err != nil {
		return nil, errors.Join(err, binding.Destroy())
	}
	for t, task := range flow.Tasks {
		if !net.model.Has(task) {
			continue
		}
		output, err := ort.NewTensor(ort.NewShape(int64(n), int64(r.width[t])), r.outputs[t][:n*r.width[t]])
		if err != nil {
			return nil, errors.Join(err, binding.Destroy())
		}
		r.tensors = append(r.tensors, output)
		if err := binding.BindOutput(task.String(), output); err != nil {
			return nil, errors.Join(err, binding.Destroy())
		}
	}
	return binding, nil
}

// close frees the runner. Freeing cannot fail.
func (r *runner) close() {
	for _, bindings := range r.bound {
		for _, binding := range bindings {
			if binding != nil {
				_ = binding.Destroy()
			}
		}
	}
	for _, tensor := range r.tensors {
		_ = tensor.Destroy()
	}
	r.pins.Unpin()
	r.engine.release()
}

// oneLine brings an error of ONNX Runtime, which may be of many lines, to one of
// bounded length.
func oneLine(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return errors.New(text)
}

// probe runs one batch and holds what comes out against the contract: rows of
// probabilities, as many as the manifest has labels.
func (r *runner) probe() error {
	const n = 2
	for i := range n {
		v := r.vector(i)
		for j := range v {
			v[j] = byte(i * (j + 7) * 31)
		}
	}
	if err := r.run(n); err != nil {
		return fmt.Errorf("%w\nits outputs must be as wide as its manifest has labels: list one label for each output, or export it again", err)
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
				return fmt.Errorf("model %q: its output %q are no probabilities: they sum to %.3g\nexport it with a softmax at the end of each output",
					r.engine.decider.heads[t].model, flow.Tasks[t], sum)
			}
		}
	}
	return nil
}
