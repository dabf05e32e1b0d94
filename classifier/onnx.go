// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The few fields of an ONNX file (onnx.proto3) that are read here: names, types
// and shapes of the graph's inputs and outputs. ONNX Runtime reads the rest, but
// it is not needed to refuse a model that does not fit.
const (
	modelGraph       = 7
	graphInitializer = 5
	graphInput       = 11
	graphOutput      = 12
	tensorName       = 8
	valueName        = 1
	valueType        = 2
	typeTensor       = 1
	tensorElem       = 1
	tensorShape      = 2
	shapeDim         = 1
	dimValue         = 1
)

// The element types of ONNX that the contract names (TensorProto.DataType).
const (
	elemFloat = 1
	elemUint8 = 2
)

// elemNames are the types that a wrong export usually has.
var elemNames = map[uint64]string{1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}

func elemName(elem uint64) string {
	if name, ok := elemNames[elem]; ok {
		return name
	}
	return fmt.Sprintf("ONNX type %d", elem)
}

// onnxValue is an input or output of a graph.
type onnxValue struct {
	name string
	elem uint64
	dims []int64 // -1: dynamic
}

func (v onnxValue) shape() string {
	text := "["
	for i, dim := range v.dims {
		if i > 0 {
			text += ","
		}
		if dim < 0 {
			text += "N"
		} else {
			text += fmt.Sprint(dim)
		}
	}
	return text + "]"
}

// errNotONNX is the error for bytes that are no ONNX model.
var errNotONNX = errors.New("not an ONNX model, or cut short")

// readONNX returns the inputs (without weights that are listed as such) and the
// outputs of an ONNX model.
func readONNX(data []byte) (inputs, outputs []onnxValue, err error) {
	var graph []byte
	err = eachField(data, func(number int, value uint64, bytes []byte) error {
		if number == modelGraph && bytes != nil {
			graph = bytes
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if graph == nil {
		return nil, nil, errNotONNX
	}
	weights := map[string]bool{}
	err = eachField(graph, func(number int, value uint64, bytes []byte) error {
		switch number {
		case graphInput, graphOutput:
			v, err := readValue(bytes)
			if err != nil {
				return err
			}
			if number == graphInput {
				inputs = append(inputs, v)
			} else {
				outputs = append(outputs, v)
			}
		case graphInitializer:
			return eachField(bytes, func(number int, _ uint64, bytes []byte) error {
				if number == tensorName {
					weights[string(bytes)] = true
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	var real []onnxValue
	for _, input := range inputs {
		if !weights[input.name] {
			real = append(real, input)
		}
	}
	return real, outputs, nil
}

func readValue(data []byte) (onnxValue, error) {
	var v onnxValue
	err := eachField(data, func(number int, _ uint64, bytes []byte) error {
		switch number {
		case valueName:
			v.name = string(bytes)
		case valueType:
			return eachField(bytes, func(number int, _ uint64, bytes []byte) error {
				if number != typeTensor {
					return nil
				}
				return eachField(bytes, func(number int, value uint64, bytes []byte) error {
					switch number {
					case tensorElem:
						v.elem = value
					case tensorShape:
						return eachField(bytes, func(number int, _ uint64, bytes []byte) error {
							if number != shapeDim {
								return nil
							}
							dim := int64(-1)
							err := eachField(bytes, func(number int, value uint64, bytes []byte) error {
								if number == dimValue && bytes == nil {
									dim = int64(value)
								}
								return nil
							})
							v.dims = append(v.dims, dim)
							return err
						})
					}
					return nil
				})
			})
		}
		return nil
	})
	return v, err
}

// eachField calls fn for each field of a protobuf message: with the value of a
// varint, or with the bytes of a length-delimited field. bytes is nil for the
// former only.
func eachField(data []byte, fn func(number int, value uint64, bytes []byte) error) error {
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return errNotONNX
		}
		data = data[n:]
		var value uint64
		var bytes []byte
		switch tag & 7 {
		case 0:
			if value, n = binary.Uvarint(data); n <= 0 {
				return errNotONNX
			}
		case 1:
			n = 8
		case 2:
			length, m := binary.Uvarint(data)
			if m <= 0 || length > uint64(len(data)-m) {
				return errNotONNX
			}
			n = m + int(length)
			bytes = data[m:n:n]
		case 5:
			n = 4
		default:
			return errNotONNX
		}
		if n > len(data) {
			return errNotONNX
		}
		data = data[n:]
		if err := fn(int(tag>>3), value, bytes); err != nil {
			return err
		}
	}
	return nil
}
