// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

func TestWalker(t *testing.T) {
	name := writeCapture(t, filepath.Join(t.TempDir(), "a.pcap"),
		between(6, "10.0.0.9:1000", "10.0.0.2:443", 0),
		between(17, "10.0.0.9:1000", "10.0.0.2:443", 5),
		between(6, "10.0.0.2:443", "10.0.0.9:1000", 100),
		packettest.Spec{Proto: 1, Payload: 8}.Build().Data,
		packettest.Spec{Fragment: packettest.Later, Payload: 8}.Build().Data,
		between(6, "10.0.0.9:1000", "10.0.0.2:443", 3),
		between(17, "10.0.0.9:1000", "10.0.0.2:53", 40),
	)
	reader, err := capture.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	w := NewWalker(reader)
	sampled := 0
	for {
		step, err := w.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if step.Sampled {
			sampled++
		}
	}
	flows := slices.Collect(w.Flows())
	if len(flows) != 3 || sampled != 3 {
		t.Fatalf("%d flows, %d sampled", len(flows), sampled)
	}
	tcp := flows[0]
	if tcp.Key.String() != "tcp 10.0.0.2:443 10.0.0.9:1000" || tcp.Src.String() != "10.0.0.9:1000" || tcp.Packets != 3 ||
		tcp.Bytes != 3*40+103 || tcp.Payloads != 2 || !tcp.First.Equal(packettest.Began) || !tcp.Last.Equal(packettest.Began.Add(5*packettest.Step)) {
		t.Errorf("%+v", tcp)
	}
	if dns := flows[2]; dns.Packets != 1 || dns.Payloads != 0 {
		t.Errorf("%+v", dns)
	}
	if w.Passed(vector.ICMP) != 1 || w.Passed(vector.Fragment) != 1 || w.Passed(vector.OK) != 5 {
		t.Errorf("passed %v", w.passed)
	}
	if flows, packets, err := Count(context.Background(), name); err != nil || flows != 2 || packets != 3 {
		t.Errorf("%d flows, %d packets, %v", flows, packets, err)
	}
}

// DPCLASS_CORPUS names a directory of labelled captures. Another program counted the
// packets, payload packets and flows of every file for its manifest.
func TestCorpus(t *testing.T) {
	root := os.Getenv("DPCLASS_CORPUS")
	if root == "" {
		t.Skip("SKIPPED, DPCLASS_CORPUS is not set: no labelled captures to compare with")
	}
	name := filepath.Join(root, "manifest.csv")
	captures, err := ReadManifest(name, "")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, field := range rows[0] {
		column[field] = i
	}
	differ := 0
	for i, c := range captures {
		want := func(field string) int {
			n, err := strconv.Atoi(rows[i+1][column[field]])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		reader, err := capture.Open(c.File)
		if err != nil {
			t.Fatal(err)
		}
		w := NewWalker(reader)
		payload, cut := 0, want("truncated_payload_packets")
		for {
			step, err := w.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", c.Path, err)
			}
			if step.Packet.Captured > 0 {
				payload++
			}
		}
		if got := reader.Stats().Frames; got != want("packets") {
			t.Errorf("%s: %d packets, want %d", c.Path, got, want("packets"))
		}
		// We do not count a packet that is cut inside its headers.
		if payload > want("payload_packets") || payload < want("payload_packets")-cut {
			t.Errorf("%s: %d payload packets, want %d, %d of them cut", c.Path, payload, want("payload_packets"), cut)
		}
		if w.Len() != want("flows") {
			differ++
			t.Logf("%s: %d flows, the manifest has %d", c.Path, w.Len(), want("flows"))
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
	// Some files join two captures; the manifest counts the flows of each separately.
	if differ > 5 {
		t.Errorf("the flows of %d files differ", differ)
	}
}
