// SPDX-License-Identifier: Apache-2.0

package ort

import (
	"errors"
	"sync"

	onnx "github.com/yalue/onnxruntime_go"
)

// ErrStopped is wrapped by the error of a run that a Brake has stopped.
var ErrStopped = errors.New("it was stopped")

// Brake stops networks that run too long: a network can contain a loop that never ends.
// One brake serves any number of bindings, one run at a time.
type Brake struct {
	options *onnx.RunOptions

	mu     sync.Mutex
	set    bool
	closed bool
}

// NewBrake returns a brake that is not set. [Open] must have been called.
func NewBrake() (*Brake, error) {
	options, err := onnx.NewRunOptions()
	if err != nil {
		return nil, errors.New(oneLine(err.Error()))
	}
	return &Brake{options: options}, nil
}

// Stop stops the run under way, and each later one until Release. ONNX Runtime looks at
// the brake between two operators of a network, so that the run ends soon, unless a
// single operator takes long. Stop may be called during a run.
func (b *Brake) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.set || b.closed {
		return
	}
	b.set = true
	_ = b.options.Terminate() // it only sets a flag
}

// Release makes runs possible again.
func (b *Brake) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.set || b.closed {
		return
	}
	b.set = false
	_ = b.options.UnsetTerminate() // it only clears a flag
}

func (b *Brake) stopped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.set
}

// Close frees the brake. No run may use it.
func (b *Brake) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		_ = b.options.Destroy()
	}
}
