// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// library returns ONNX Runtime's library, as a program in bin/ would find it,
// or skips the test.
func library(t testing.TB) string {
	t.Helper()
	path, err := FindLibrary("")
	if err != nil {
		inTree := filepath.Join("..", "bin", libraryNames[0])
		if path, err = FindLibrary(inTree); err != nil {
			t.Skipf("SKIPPED, nothing was classified: no ONNX Runtime: run 'make deps' or set %s", LibraryVariable)
		}
	}
	return path
}

// open returns a classifier with the default model, or skips the test.
func open(t testing.TB, o Options) *Classifier {
	t.Helper()
	o.Library = library(t)
	if o.Models == nil {
		m, err := LoadModel(DefaultModel)
		if err != nil {
			t.Fatal(err)
		}
		o.Models = []*Model{m}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// sample returns the i-th packet of the n-th flow: a UDP packet whose payload
// follows from the two numbers.
func sample(n, i int) *flow.Sample {
	packet := make([]byte, 28+40+(n*37+i*211)%900)
	packet[0], packet[8], packet[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	binary.BigEndian.PutUint16(packet[20:], uint16(40000+n%1000))
	binary.BigEndian.PutUint16(packet[22:], []uint16{443, 80, 5060, 6881, 22}[n%5])
	binary.BigEndian.PutUint16(packet[24:], uint16(len(packet)-20))
	x := uint32(n*7919 + i*104729 + 1)
	for j := 28; j < len(packet); j++ {
		x = x*1664525 + 1013904223
		packet[j] = byte(x >> 24)
	}
	return &flow.Sample{ID: flowID(n), Index: i, Time: int64(n*1000 + i), Length: len(packet), Packet: packet}
}

func flowID(n int) flow.ID {
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 40000)
	key, _ := flow.MakeKey(flow.UDP, client, netip.MustParseAddrPort("10.0.0.1:443"), 0)
	return flow.ID{Key: key, Generation: 1}
}

func vectorOf(s *flow.Sample) []byte {
	var v [vector.Size]byte
	vector.Make(&v, s.Packet, false)
	return v[:]
}

// testDecider has a task of three categories and, with apps, one of two.
func testDecider(apps bool) *decider {
	d := &decider{samples: 5}
	d.heads[0] = &head{model: "m", labels: []string{"chat", "voip", "email"}, floor: DefaultFloor, growth: DefaultGrowth, temperature: 1, unknown: 0.4, final: 0.95}
	if apps {
		d.heads[1] = &head{model: "m", labels: []string{"skype", "tor"}, floor: DefaultFloor, growth: DefaultGrowth, temperature: 1, unknown: 0.6, final: 0.95}
	}
	return d
}

// An ONNX file, as far as these tests need one: nodes without attributes but
// Cast, inputs and outputs.

type onnxFile struct {
	inputs, outputs []onnxValue
	cast            bool // one Cast node from the first input to the first output
}

func field(number int, value []byte) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number<<3|2)), uint64(len(value))), value...)
}

func number(number int, value uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number<<3)), value)
}

func (v onnxValue) encode() []byte {
	var shape []byte
	for _, dim := range v.dims {
		size := field(2, []byte("N"))
		if dim >= 0 {
			size = number(dimValue, uint64(dim))
		}
		shape = append(shape, field(shapeDim, size)...)
	}
	tensor := slices.Concat(number(tensorElem, v.elem), field(tensorShape, shape))
	return slices.Concat(field(valueName, []byte(v.name)), field(valueType, field(typeTensor, tensor)))
}

func (f onnxFile) encode() []byte {
	graph := field(2, []byte("test"))
	if f.cast {
		to := slices.Concat(field(1, []byte("to")), number(3, elemFloat), number(20, 2))
		graph = append(graph, field(1, slices.Concat(field(1, []byte(f.inputs[0].name)), field(2, []byte(f.outputs[0].name)), field(4, []byte("Cast")), field(5, to)))...)
	}
	for _, v := range f.inputs {
		graph = append(graph, field(graphInput, v.encode())...)
	}
	for _, v := range f.outputs {
		graph = append(graph, field(graphOutput, v.encode())...)
	}
	return slices.Concat(number(1, 8), field(modelGraph, graph), field(8, number(2, 17)))
}

// fitting is a file that fits fittingManifest.
func fitting() onnxFile {
	return onnxFile{
		inputs:  []onnxValue{{name: "packet", elem: elemUint8, dims: []int64{-1, vector.Size}}},
		outputs: []onnxValue{{name: "category", elem: elemFloat, dims: []int64{-1, 3}}},
	}
}

func fittingManifest() map[string]any {
	return map[string]any{
		"format": 1, "vector": 1, "name": "test", "task": []string{"category"},
		"labels": map[string]any{"category": []string{"chat", "voip", "email"}},
	}
}

// writeModel writes a model and its manifest, with the right hash where the
// manifest has none, and returns the .onnx file.
func writeModel(t *testing.T, data []byte, manifest map[string]any) string {
	t.Helper()
	if _, ok := manifest["sha256"]; !ok {
		sum := sha256.Sum256(data)
		manifest["sha256"] = hex.EncodeToString(sum[:])
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return writeFiles(t, data, text)
}

func writeFiles(t *testing.T, data, text []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.onnx")
	for name, content := range map[string][]byte{file: data, strings.TrimSuffix(file, ".onnx") + ".json": text} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// wantRefusal holds an error message against the rules of this program: what,
// where, what to do, in at most four lines.
func wantRefusal(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if n := strings.Count(text, "\n") + 1; n < 2 || n > 4 {
		t.Errorf("%d lines, want 2 to 4 (the last says what to do):\n%s", n, text)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("message lacks %q:\n%s", word, text)
		}
	}
	if testing.Verbose() {
		fmt.Println(text)
	}
}
