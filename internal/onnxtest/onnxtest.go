// SPDX-License-Identifier: Apache-2.0

// Package onnxtest writes small networks as .onnx files, for tests: right ones, and
// ones that differ from what dpclass runs.
package onnxtest

import (
	"encoding/binary"
	"math"
	"slices"
)

// Type is the type of a tensor's elements (TensorProto.DataType of onnx.proto3).
type Type uint64

// The types that these networks have.
const (
	Float  Type = 1
	Uint8  Type = 2
	Int64  Type = 7
	Bool   Type = 9
	Double Type = 11
)

// Value is an input of a network. A dimension of -1 is left open.
type Value struct {
	Name string
	Type Type
	Dims []int64
}

// Output is an output of a network.
type Output struct {
	Name string
	Type Type
	// Width is the number of labels. All are equally likely.
	Width int64
	// Flat takes away the output's second dimension.
	Flat bool
	// Raw makes the output the first Width bytes of the packet. Before the network
	// runs, nothing says how many they are.
	Raw bool
	// Endless is a byte: the network never returns if a packet of its batch begins with
	// it. 0 takes that away.
	Endless byte
	// External has the network take its weights from this file, 4 bytes for each byte of
	// the input and label.
	External string
}

// Network is a network whose outputs all come from its first input.
type Network struct {
	Inputs  []Value
	Outputs []Output
}

// Fitting is a network with three categories.
func Fitting() Network {
	return Network{
		Inputs:  []Value{{Name: "packet", Type: Uint8, Dims: []int64{-1, 1500}}},
		Outputs: []Output{{Name: "category", Type: Float, Width: 3}},
	}
}

// Encode returns the network as an .onnx file. Without inputs the outputs come from a
// constant.
func (n Network) Encode() []byte {
	graph := message(2, []byte("test"))
	from := Value{Name: "constant", Type: Uint8, Dims: []int64{1, 1500}}
	if len(n.Inputs) > 0 {
		from = n.Inputs[0]
	} else {
		graph = append(graph, weight("constant", Uint8, from.Dims, make([]byte, 1500))...)
	}
	length := from.Dims[len(from.Dims)-1]
	graph = append(graph, node("Cast", []string{from.Name}, "float", integer("to", uint64(Float)))...)
	for _, out := range n.Outputs {
		last := "last of " + out.Name
		var shape []int64
		if out.Raw {
			condition := make([]byte, length)
			for i := range out.Width {
				condition[i] = 1
			}
			graph = slices.Concat(graph, weight("which of "+out.Name, Bool, []int64{length}, condition),
				node("Compress", []string{"float", "which of " + out.Name}, last, integer("axis", 1)))
			shape = []int64{-1, -1}
		} else {
			dims, size := []int64{length, out.Width}, length*out.Width
			if out.Flat {
				dims, size = dims[:1], length
			}
			weights := weight("weights of "+out.Name, Float, dims, make([]byte, 4*size))
			if out.External != "" {
				weights = external("weights of "+out.Name, dims, out.External)
			}
			graph = slices.Concat(graph, weights,
				node("MatMul", []string{"float", "weights of " + out.Name}, "sums of "+out.Name),
				loop(&out), node("Softmax", []string{"looped sums of " + out.Name}, last))
		}
		if out.Endless != 0 { // what follows a loop has no inferred shape
			shape = []int64{-1, out.Width}
		}
		graph = slices.Concat(graph, node("Cast", []string{last}, out.Name, integer("to", uint64(out.Type))),
			message(12, valueInfo(Value{out.Name, out.Type, shape})))
	}
	for _, in := range n.Inputs {
		graph = append(graph, message(11, valueInfo(in))...)
	}
	return slices.Concat(number(1, 8), message(7, graph), message(8, number(2, 17)))
}

// loop passes the sums of an output on, or never, as its Endless says. It is a Loop without
// a limit, whose body returns the condition that it gets.
func loop(out *Output) []byte {
	from, to := "sums of "+out.Name, "looped sums of "+out.Name
	if out.Endless == 0 {
		return node("Identity", []string{from}, to)
	}
	first := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(out.Endless)))
	sums := []int64{-1, out.Width}
	body := slices.Concat(message(2, []byte("body")),
		node("Identity", []string{"condition"}, "same condition"), node("Identity", []string{"value"}, "same value"),
		message(11, valueInfo(Value{"iteration", Int64, []int64{}})),
		message(11, valueInfo(Value{"condition", Bool, []int64{}})),
		message(11, valueInfo(Value{"value", Float, sums})),
		message(12, valueInfo(Value{"same condition", Bool, []int64{}})),
		message(12, valueInfo(Value{"same value", Float, sums})))
	return slices.Concat(
		weight("first column", Int64, []int64{}, make([]byte, 8)), weight("endless", Float, []int64{}, first),
		node("Gather", []string{"float", "first column"}, "first bytes", integer("axis", 1)),
		node("Equal", []string{"first bytes", "endless"}, "matches"),
		node("Cast", []string{"matches"}, "matches as numbers", integer("to", uint64(Float))),
		node("ReduceMax", []string{"matches as numbers"}, "number", integer("keepdims", 0)),
		node("Cast", []string{"number"}, "loops", integer("to", uint64(Bool))),
		node("Loop", []string{"", "loops", from}, to, slices.Concat(message(1, []byte("body")), message(6, body), number(20, 5))))
}

// The encoding of protobuf: a field is its number and type, and its value.

func message(field int, value []byte) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field<<3|2)), uint64(len(value))), value...)
}

func number(field int, value uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field<<3)), value)
}

func node(op string, inputs []string, output string, attributes ...[]byte) []byte {
	var fields []byte
	for _, input := range inputs {
		fields = append(fields, message(1, []byte(input))...)
	}
	fields = slices.Concat(fields, message(2, []byte(output)), message(4, []byte(op)))
	for _, attribute := range attributes {
		fields = append(fields, message(5, attribute)...)
	}
	return message(1, fields)
}

func integer(name string, value uint64) []byte {
	return slices.Concat(message(1, []byte(name)), number(3, value), number(20, 2))
}

func weight(name string, elements Type, dims []int64, raw []byte) []byte {
	var fields []byte
	for _, dim := range dims {
		fields = append(fields, number(1, uint64(dim))...)
	}
	return message(5, slices.Concat(fields, number(2, uint64(elements)), message(8, []byte(name)), message(9, raw)))
}

// external is a weight that is in another file.
func external(name string, dims []int64, file string) []byte {
	var fields []byte
	for _, dim := range dims {
		fields = append(fields, number(1, uint64(dim))...)
	}
	location := slices.Concat(message(1, []byte("location")), message(2, []byte(file)))
	return message(5, slices.Concat(fields, number(2, uint64(Float)), message(8, []byte(name)), message(13, location), number(14, 1)))
}

func valueInfo(v Value) []byte {
	tensor := number(1, uint64(v.Type))
	if v.Dims != nil {
		var shape []byte
		for _, dim := range v.Dims {
			size := message(2, []byte("N"))
			if dim >= 0 {
				size = number(1, uint64(dim))
			}
			shape = append(shape, message(1, size)...)
		}
		tensor = append(tensor, message(2, shape)...)
	}
	return slices.Concat(message(1, []byte(v.Name)), message(2, message(1, tensor)))
}
