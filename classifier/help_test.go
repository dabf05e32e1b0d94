// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/onnxtest"
)

// paper is the folder of the paper's networks.
const paper = "../models/paper"

// library returns ONNX Runtime's library, as a program in bin/ would find it,
// or skips the test.
func library(t testing.TB) string {
	t.Helper()
	for _, candidate := range []string{"", "../bin"} {
		if path, err := ort.Find(candidate); err == nil {
			return path
		}
	}
	t.Skipf("SKIPPED, nothing was classified: no ONNX Runtime: run 'make deps' or set %s", ort.LibraryVariable)
	return ""
}

// open returns a classifier with the default model, or skips the test.
func open(t testing.TB, o Options) *Classifier {
	t.Helper()
	o.Library = library(t)
	if o.Models == nil {
		o.Models = []*model.Model{load(t, model.Default)}
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

func load(t testing.TB, nameOrFile string) *model.Model {
	t.Helper()
	m, err := model.Load(nameOrFile, paper)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// loadNetwork returns a model "test" of the network with these categories.
func loadNetwork(t testing.TB, network onnxtest.Network, categories ...string) *model.Model {
	t.Helper()
	data := network.Encode()
	sum := sha256.Sum256(data)
	manifest, err := json.Marshal(map[string]any{
		"format": model.Format, "vector": 1, "name": "test", "task": []string{"category"},
		"labels": map[string]any{"category": categories}, "sha256": hex.EncodeToString(sum[:]),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.onnx")
	for name, content := range map[string][]byte{file: data, filepath.Join(filepath.Dir(file), "test.json"): manifest} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return load(t, file)
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
	return &flow.Sample{ID: flowID(n), Index: i, Time: int64(n*1000 + i), TwoWay: true, Length: len(packet), Packet: packet}
}

func flowID(n int) flow.ID {
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 40000)
	key, _ := flow.MakeKey(flow.UDP, client, netip.MustParseAddrPort("10.0.0.1:443"), 0)
	return flow.ID{Key: key, Generation: 1}
}

func vectorOf(s *flow.Sample) []byte { return Vector(s.Packet) }

// testDecider has a task of three categories and, with apps, one of two.
func testDecider(apps bool) *decider {
	task := func(unknown float64, labels ...string) *head {
		return &head{
			model: "m", labels: labels, floor: model.DefaultFloor, growth: model.DefaultGrowth, temperature: 1,
			unknown: unknown, final: 0.95,
		}
	}
	d := &decider{samples: 5}
	d.heads[flow.Category] = task(0.4, "chat", "voip", "email")
	if apps {
		d.heads[flow.App] = task(0.6, "skype", "tor")
	}
	return d
}

// modelJudge returns a judge that leaves everything to the networks.
func modelJudge(d *decider) *judge {
	return &judge{decider: d, use: EvidenceModel, budget: d.samples}
}
