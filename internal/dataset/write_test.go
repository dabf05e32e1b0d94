// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// writeCapture writes packets as a pcap file.
func writeCapture(t testing.TB, path string, packets ...[]byte) string {
	t.Helper()
	return writeFile(t, path, packettest.Pcap(packets...))
}

// between builds a packet between two endpoints.
func between(proto uint8, src, dst string, payload int) []byte {
	from := netip.MustParseAddrPort(src)
	return packettest.Spec{IPv6: from.Addr().Is6(), Proto: proto, Payload: payload, Src: from, Dst: netip.MustParseAddrPort(dst)}.Build().Data
}

// array is the content of a .npy file.
type array struct {
	kind  string
	shape []int
	data  []byte
}

func readNpy(t *testing.T, path string) array {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(file, []byte("\x93NUMPY\x01\x00")) {
		t.Fatalf("%s: not a .npy file", path)
	}
	end := 10 + int(binary.LittleEndian.Uint16(file[8:]))
	if end%64 != 0 || file[end-1] != '\n' {
		t.Fatalf("%s: the data begins at %d", path, end)
	}
	match := regexp.MustCompile(`^\{'descr': '([^']+)', 'fortran_order': False, 'shape': \((\d+),(?: (\d+))?\), \} *\n$`).FindSubmatch(file[10:end])
	if match == nil {
		t.Fatalf("%s: header %q", path, file[10:end])
	}
	a := array{kind: string(match[1]), data: file[end:]}
	size := int(a.kind[2] - '0')
	for _, part := range match[2:] {
		if len(part) > 0 {
			n, err := strconv.Atoi(string(part))
			if err != nil {
				t.Fatal(err)
			}
			a.shape = append(a.shape, n)
			size *= n
		}
	}
	if size != len(a.data) {
		t.Fatalf("%s: %d bytes of data, want %d", path, len(a.data), size)
	}
	return a
}

func (a array) ints() []int {
	size := int(a.kind[2] - '0')
	var out []int
	for i := 0; i < len(a.data); i += size {
		var value uint64
		for j := size - 1; j >= 0; j-- {
			value = value<<8 | uint64(a.data[i+j])
		}
		out = append(out, int(int64(value<<(64-8*size))>>(64-8*size)))
	}
	return out
}

func TestBuild(t *testing.T) {
	root, dir := t.TempDir(), filepath.Join(t.TempDir(), "new", "set")
	syn := between(6, "10.0.0.1:1000", "10.0.0.2:443", 0)
	out := between(6, "10.0.0.1:1000", "10.0.0.2:443", 10)
	back := between(6, "10.0.0.2:443", "10.0.0.1:1000", 1600)
	dns := between(17, "10.0.0.1:1000", "10.0.0.2:53", 30)
	six := between(17, "[fd00::1]:5", "[fd00::2]:6", 7)
	writeCapture(t, filepath.Join(root, "a.pcap"), syn, out, dns, back, out, six, out)
	writeCapture(t, filepath.Join(root, "b.pcap"), out, []byte{0x45}, back)
	captures := []Capture{
		{Name: "a", Set: "s1", Path: "a.pcap", Category: "voip", App: "skype", File: filepath.Join(root, "a.pcap")},
		{Name: "b", Set: "s0", Path: "b.pcap", Category: "other", App: "", VPN: true, File: filepath.Join(root, "b.pcap")},
	}
	ticks := 0
	aggregation := Aggregation{Samples: 4, Growth: .5, Floor: 1e-9}
	meta, err := Build(context.Background(), dir, captures,
		BuildOptions{Source: "test", PerFlow: 3, Aggregation: aggregation, Progress: func(int, int) { ticks++ }})
	if err != nil {
		t.Fatal(err)
	}
	if meta.Packets != 6 || meta.Flows != 3 || ticks != 2 {
		t.Errorf("%+v, %d ticks", meta, ticks)
	}
	text, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read Meta
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if read.Format != 1 || read.Vector != vector.Version || read.PerFlow != 3 || read.Packets != 6 || len(read.Captures) != 2 ||
		fmt.Sprint(read.Sets) != "[s0 s1]" || read.Aggregation != aggregation || fmt.Sprint(read.NoClass) != "[other]" {
		t.Errorf("%+v", read)
	}
	if a, b := read.Captures[0], read.Captures[1]; a.Flows != 2 || a.Packets != 4 || b.Flows != 1 || b.Packets != 2 {
		t.Errorf("captures %+v", read.Captures)
	}
	if read.Categories[5] != "voip" || read.Categories[17] != "other" || read.Apps[10] != "skype" || len(read.Apps) != 17 || len(read.KnownApps) != 17 {
		t.Errorf("categories %v, apps %v", read.Categories, read.Apps)
	}

	packets := readNpy(t, filepath.Join(dir, "packet.npy"))
	if packets.kind != "|u1" || fmt.Sprint(packets.shape) != "[6 1500]" {
		t.Errorf("packets %s %v", packets.kind, packets.shape)
	}
	for i, packet := range [][]byte{out, back, out, six, out, back} {
		var want [vector.Size]byte
		vector.Make(&want, packet, false)
		if !bytes.Equal(packets.data[i*vector.Size:(i+1)*vector.Size], want[:]) {
			t.Errorf("packet %d differs", i)
		}
	}
	for name, want := range map[string]string{
		"category":       "<i2 [5 5 5 5 17 17]",
		"app":            "<i2 [10 10 10 10 -1 -1]",
		"flow":           "<i4 [0 0 0 1 2 2]",
		"capture":        "<i4 [0 0 0 0 1 1]",
		"set":            "<i2 [1 1 1 1 0 0]",
		"index":          "<i4 [0 1 2 0 0 1]",
		"length":         "<i4 [50 1640 50 55 50 1640]",
		"l4_offset":      "<i2 [20 20 20 40 20 20]",
		"payload_offset": "<i2 [40 40 40 60 40 40]",
	} {
		a := readNpy(t, filepath.Join(dir, name+".npy"))
		if got := fmt.Sprint(a.kind, " ", a.ints()); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	times := readNpy(t, filepath.Join(dir, "time.npy"))
	var seconds []float64
	for i := 0; i < len(times.data); i += 8 {
		seconds = append(seconds, math.Float64frombits(binary.LittleEndian.Uint64(times.data[i:])))
	}
	if got := fmt.Sprint(times.kind, " ", seconds); got != "<f8 [0.25 0.75 1 1.25 0 0.5]" {
		t.Errorf("time is %s", got)
	}

	// Build does not touch a directory that is not empty.
	if _, err := Build(context.Background(), dir, captures, BuildOptions{}); err == nil {
		t.Error("Build overwrote an existing dataset")
	}
}

// A Build that fails leaves nothing behind.
func TestBuildFails(t *testing.T) {
	root := t.TempDir()
	parent := t.TempDir()
	dir := filepath.Join(parent, "set")
	missing := Capture{Path: "missing", File: filepath.Join(root, "missing")}
	silent := Capture{Path: "silent", File: writeCapture(t, filepath.Join(root, "silent"), between(6, "10.0.0.1:1", "10.0.0.2:2", 0))}
	for name, captures := range map[string][]Capture{"missing": {missing}, "without payload": {silent}} {
		if _, err := Build(context.Background(), dir, captures, BuildOptions{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, dir, []Capture{silent}, BuildOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBuildOfCutCapture(t *testing.T) {
	root := t.TempDir()
	packet := between(17, "10.0.0.1:1", "10.0.0.2:2", 50)
	name := writeCapture(t, filepath.Join(root, "cut.pcap"), packet, packet, packet)
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, name, file[:len(file)-1])
	var warnings []error
	meta, err := Build(context.Background(), filepath.Join(root, "set"), []Capture{{Path: "cut.pcap", File: name}},
		BuildOptions{Checksums: true, Warn: func(err error) { warnings = append(warnings, err) }})
	if err != nil {
		t.Fatal(err)
	}
	var damage *capture.DamageError
	if meta.Packets != 2 || len(warnings) != 1 || !errors.As(warnings[0], &damage) {
		t.Errorf("%d packets, warnings %v", meta.Packets, warnings)
	}
	var want [vector.Size]byte
	vector.Make(&want, packet, true)
	if got := readNpy(t, filepath.Join(root, "set", "packet.npy")); !bytes.Equal(got.data[:vector.Size], want[:]) {
		t.Error("the vector lacks the checksums")
	}
}
