// SPDX-License-Identifier: Apache-2.0

package ort

import (
	"math"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dpclass/dpclass/internal/fault/faulttest"
	"github.com/dpclass/dpclass/internal/onnxtest"
	"github.com/dpclass/dpclass/internal/vector"
)

var category = []Output{{"category", 3}}

// openLibrary opens ONNX Runtime, or skips the test.
func openLibrary(t *testing.T) {
	t.Helper()
	for _, candidate := range []string{"", filepath.Join("..", "..", "bin")} {
		if _, err := Find(candidate); err == nil {
			if err := Open(candidate); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Skipf("SKIPPED, no ONNX Runtime: run 'make deps' or set %s", LibraryVariable)
}

// Two goroutines share a session, each with buffers and batch sizes of its own.
func TestRun(t *testing.T) {
	openLibrary(t)
	network := onnxtest.Fitting()
	network.Outputs = append(network.Outputs, onnxtest.Output{Name: "first bytes", Type: onnxtest.Float, Width: 2, Raw: true})
	session, err := NewSession(network.Encode(), []Output{{"first bytes", 2}, {"category", 3}})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for part := range 2 {
		group.Go(func() {
			const most = 5
			input, bytes, probabilities := make([]byte, most*vector.Size), make([]float32, most*2), make([]float32, most*3)
			for n := 1; n <= most; n++ {
				binding, err := session.Bind(n, input, [][]float32{bytes, probabilities})
				if err != nil {
					t.Error(err)
					return
				}
				for round := range 3 {
					for i := range n {
						input[i*vector.Size] = byte(part*100 + round*10 + i)
						input[i*vector.Size+1] = byte(n)
					}
					if err := binding.Run(nil); err != nil {
						t.Error(err)
					}
					for i := range n {
						if bytes[2*i] != float32(part*100+round*10+i) || bytes[2*i+1] != float32(n) {
							t.Errorf("row %d of %d has %v", i, n, bytes[2*i:2*i+2])
						}
					}
				}
				for _, p := range probabilities[:3*n] {
					if math.Abs(float64(p)-1./3) > 1e-6 {
						t.Errorf("probabilities %v", probabilities[:3*n])
					}
				}
				binding.Close()
			}
		})
	}
	group.Wait()
	if err := session.Close(); err != nil {
		t.Error(err)
	}
}

// A width that nothing says before the network runs is found out then.
func TestRunRefusesWidth(t *testing.T) {
	openLibrary(t)
	network := onnxtest.Fitting()
	network.Outputs[0].Raw = true
	network.Outputs[0].Width = 4
	session, err := NewSession(network.Encode(), category)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	binding, err := session.Bind(2, make([]byte, 2*vector.Size), [][]float32{make([]float32, 6)})
	if err != nil {
		t.Fatal(err)
	}
	defer binding.Close()
	if err := binding.Run(nil); err == nil {
		t.Error("an output of 4 fitted into a buffer of 3")
	}
}

func TestRefusedNetwork(t *testing.T) {
	openLibrary(t)
	for _, test := range []struct {
		name   string
		change func(*onnxtest.Network)
		want   string
	}{
		{"no input", func(n *onnxtest.Network) { n.Inputs = nil }, "none"},
		{"input name", func(n *onnxtest.Network) { n.Inputs[0].Name = "x" }, `"x"`},
		{"two inputs", func(n *onnxtest.Network) {
			n.Inputs = append(n.Inputs, onnxtest.Value{Name: "port", Type: onnxtest.Int64, Dims: []int64{1}})
		}, `"packet", "port"`},
		{"input type", func(n *onnxtest.Network) { n.Inputs[0].Type = onnxtest.Float }, "float [N,1500]"},
		{"input size", func(n *onnxtest.Network) { n.Inputs[0].Dims[1] = 784 }, "uint8 [N,784]"},
		{"input rank", func(n *onnxtest.Network) { n.Inputs[0].Dims = []int64{-1, 1, 1500} }, "uint8 [N,1,1500]"},
		{"fixed batch", func(n *onnxtest.Network) { n.Inputs[0].Dims[0] = 1 }, "uint8 [1,1500]"},
		{"output name", func(n *onnxtest.Network) { n.Outputs[0].Name = "app" }, `"app"`},
		{"output type", func(n *onnxtest.Network) { n.Outputs[0].Type = onnxtest.Double }, "double [N,3]"},
		{"output rank", func(n *onnxtest.Network) { n.Outputs[0].Flat = true }, "float [N]"},
		{"output width", func(n *onnxtest.Network) { n.Outputs[0].Width = 17 }, "17 wide"},
	} {
		t.Run(test.name, func(t *testing.T) {
			network := onnxtest.Fitting()
			test.change(&network)
			_, err := NewSession(network.Encode(), category)
			faulttest.Want(t, err, test.want)
		})
	}
}

func TestRefusedBytes(t *testing.T) {
	openLibrary(t)
	whole := onnxtest.Fitting().Encode()
	for name, data := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-20], "text": []byte("version https://git-lfs.github.com/spec/v1\n"), "zeros": make([]byte, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewSession(data, category)
			faulttest.Want(t, err, "ONNX Runtime")
		})
	}
}
