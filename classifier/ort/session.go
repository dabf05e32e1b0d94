// SPDX-License-Identifier: Apache-2.0

// Package ort runs networks in ONNX Runtime. It is the only package with cgo.
//
// ONNX Runtime is a shared library that [Open] opens when it is first needed:
// programs that link this package start without it.
package ort

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	onnx "github.com/yalue/onnxruntime_go"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/vector"
)

// Input is the name of a network's input: packet vectors, uint8 [N,1500].
const Input = "packet"

// Output is an output of a network: float32 [N,Width], one row of probabilities for
// each vector.
type Output struct {
	Name  string
	Width int
}

// Session is a network opened in ONNX Runtime. Several goroutines may run it at the
// same time, each with its own bindings.
type Session struct {
	session *onnx.DynamicAdvancedSession
	outputs []Output
}

// NewSession opens a network, given as the bytes of an .onnx file, and checks that it
// has the input [Input] and the outputs. [Open] must have been called. The session uses
// only the caller's thread.
func NewSession(network []byte, outputs []Output) (*Session, error) {
	if err := checkNetwork(network, outputs); err != nil {
		return nil, err
	}
	session, err := open(network, outputs)
	if err != nil {
		return nil, refusal(err)
	}
	return &Session{session: session, outputs: outputs}, nil
}

func open(network []byte, outputs []Output) (session *onnx.DynamicAdvancedSession, err error) {
	options, err := onnx.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, options.Destroy()) }()
	for _, set := range []func() error{
		func() error { return options.SetIntraOpNumThreads(1) },
		func() error { return options.SetInterOpNumThreads(1) },
		func() error { return options.SetGraphOptimizationLevel(onnx.GraphOptimizationLevelEnableAll) },
		func() error { return options.SetLogSeverityLevel(onnx.LoggingLevelFatal) },
	} {
		if err := set(); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(outputs))
	for _, output := range outputs {
		names = append(names, output.Name)
	}
	return onnx.NewDynamicAdvancedSessionWithONNXData(network, []string{Input}, names, options)
}

// refusal is the error for a network that ONNX Runtime cannot open.
func refusal(err error) error {
	return fault.Advise(fmt.Errorf("ONNX Runtime %s cannot open it: %s", onnx.GetVersion(), oneLine(err.Error())),
		"copy it again, or export it with an operator set that this release supports")
}

// checkNetwork compares the inputs and outputs of a network with the expected ones.
func checkNetwork(network []byte, want []Output) error {
	const export = `export it with input "packet" uint8 [N,1500] and softmax outputs "category" and/or "app" float32 [N,labels]`
	inputs, outputs, err := onnx.GetInputOutputInfoWithONNXData(network)
	if err != nil {
		return refusal(err)
	}
	if len(inputs) != 1 || inputs[0].Name != Input {
		return fault.Advise(fmt.Errorf("its inputs are %s; want only %q", names(inputs), Input), export)
	}
	in := &inputs[0]
	if !isTensor(in, onnx.TensorElementDataTypeUint8, vector.Size) {
		return fault.Advise(fmt.Errorf("its input %q is %s; want uint8 [N,%d]", Input, describe(in), vector.Size), export)
	}
	if in.Dimensions[0] >= 0 {
		return fault.Advise(fmt.Errorf("its input %q is %s: the number of packets is fixed", Input, describe(in)),
			"export it with a dynamic first axis")
	}
	for _, w := range want {
		out := find(outputs, w.Name)
		if out == nil {
			return fault.Advise(fmt.Errorf("it has no output %q, which its manifest names in \"task\"; its outputs are %s", w.Name, names(outputs)), export)
		}
		if !isTensor(out, onnx.TensorElementDataTypeFloat, -1) {
			return fault.Advise(fmt.Errorf("its output %q is %s; want float [N,%d]", w.Name, describe(out), w.Width), export)
		}
		// If the exporter left the width open, it is checked when the network runs.
		if width := out.Dimensions[1]; width >= 0 && width != int64(w.Width) {
			return fault.Advise(fmt.Errorf("its output %q is %d wide, its manifest has %d labels for it", w.Name, width, w.Width),
				"list one label for each output, in output order")
		}
	}
	return nil
}

// isTensor reports whether the value is a tensor of two dimensions with that type of
// elements. A width below 0 means any width.
func isTensor(v *onnx.InputOutputInfo, elements onnx.TensorElementDataType, width int64) bool {
	return v.OrtValueType == onnx.ONNXTypeTensor && v.DataType == elements && len(v.Dimensions) == 2 &&
		(width < 0 || v.Dimensions[1] == width)
}

func find(values []onnx.InputOutputInfo, name string) *onnx.InputOutputInfo {
	for i := range values {
		if values[i].Name == name {
			return &values[i]
		}
	}
	return nil
}

// describe returns type and shape of a value, such as "float [N,17]".
func describe(v *onnx.InputOutputInfo) string {
	if v.OrtValueType != onnx.ONNXTypeTensor {
		return "not a tensor"
	}
	dims := make([]string, 0, len(v.Dimensions))
	for _, dim := range v.Dimensions {
		text := "N"
		if dim >= 0 {
			text = fmt.Sprint(dim)
		}
		dims = append(dims, text)
	}
	elements := strings.ToLower(strings.TrimPrefix(v.DataType.String(), "ONNX_TENSOR_ELEMENT_DATA_TYPE_"))
	return fmt.Sprintf("%s [%s]", elements, strings.Join(dims, ","))
}

func names(values []onnx.InputOutputInfo) string {
	if len(values) == 0 {
		return "none"
	}
	quoted := make([]string, 0, len(values))
	for _, v := range values {
		quoted = append(quoted, fmt.Sprintf("%q", v.Name))
	}
	return strings.Join(quoted, ", ")
}

// Close frees the session. Its bindings must have been closed.
func (s *Session) Close() error { return s.session.Destroy() }

// Binding ties a session to buffers, for batches of one size. ONNX Runtime reads and
// writes the buffers directly, without a copy.
type Binding struct {
	session *Session
	inputs  []onnx.Value
	outputs []onnx.Value
	pins    runtime.Pinner // ONNX Runtime keeps the addresses of the buffers
}

// Bind returns a binding for batches of n vectors. input needs at least n*1500 bytes.
// outputs needs one buffer for each output of the session, in order, with at least
// n*Width values.
func (s *Session) Bind(n int, input []byte, outputs [][]float32) (*Binding, error) {
	b := &Binding{session: s}
	if err := b.bind(n, input, outputs); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Binding) bind(n int, input []byte, outputs [][]float32) error {
	b.pins.Pin(&input[0])
	in, err := onnx.NewTensor(onnx.NewShape(int64(n), vector.Size), input)
	if err != nil {
		return err
	}
	b.inputs = append(b.inputs, in)
	for i, output := range b.session.outputs {
		b.pins.Pin(&outputs[i][0])
		out, err := onnx.NewTensor(onnx.NewShape(int64(n), int64(output.Width)), outputs[i])
		if err != nil {
			return err
		}
		b.outputs = append(b.outputs, out)
	}
	return nil
}

// Run runs the network over the input buffer and fills the output buffers. The error
// wraps ErrStopped if the brake stopped it. brake may be nil.
func (b *Binding) Run(brake *Brake) error {
	var options *onnx.RunOptions
	if brake != nil {
		options = brake.options
	}
	err := b.session.session.RunWithOptions(b.inputs, b.outputs, options)
	switch {
	case err == nil:
		return nil
	case brake != nil && brake.stopped():
		return ErrStopped
	}
	return errors.New(oneLine(err.Error()))
}

// Close frees the binding, but not the buffers. Freeing cannot fail.
func (b *Binding) Close() {
	for _, tensor := range append(b.inputs, b.outputs...) {
		_ = tensor.Destroy()
	}
	b.pins.Unpin()
}

// oneLine turns a message of ONNX Runtime, which may have many lines, into one line of
// limited length.
func oneLine(message string) string {
	text := strings.Join(strings.Fields(message), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
