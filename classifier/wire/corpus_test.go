// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
)

// guessed is a flow of the corpus with what guess says of it.
type guessed struct {
	file     dataset.Capture
	src, dst string
	proto    flow.Proto
	number   int // of the flow in its file
	guess    guess
	first    []byte
}

// walkCorpus calls visit for each flow of a directory of labelled captures.
func walkCorpus(t *testing.T, root string, visit func(guessed)) {
	t.Helper()
	captures, err := dataset.ReadManifest(filepath.Join(root, "manifest.csv"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range captures {
		reader, err := capture.Open(file.File)
		if err != nil {
			t.Fatal(err)
		}
		walker := dataset.NewWalker(reader)
		var list []*guessed
		for {
			step, err := walker.Next()
			var damage *capture.DamageError
			if errors.Is(err, io.EOF) || errors.As(err, &damage) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file.Path, err)
			}
			for len(list) <= step.Flow.Number {
				list = append(list, nil)
			}
			if !step.Sampled {
				continue
			}
			found := list[step.Flow.Number]
			if found == nil {
				found = &guessed{file: file, src: step.Flow.Src.String(), dst: step.Flow.Dst.String(), proto: step.Flow.Key.Proto, number: step.Flow.Number}
				list[step.Flow.Number] = found
			}
			packet := packetOf(step)
			if found.first == nil {
				found.first = append([]byte(nil), packet.Payload[:min(64, len(packet.Payload))]...)
			}
			found.guess.add(&packet)
		}
		reader.Close()
		for _, found := range list {
			if found != nil {
				visit(*found)
			}
		}
	}
}

// packetOf returns a packet of a capture as guess reads it.
func packetOf(step dataset.Step) Packet {
	p := step.Packet
	data := step.Data[:min(len(step.Data), p.Payload+p.Captured)]
	packet := Packet{
		Proto: flow.Proto(p.Proto), FromA: p.Src == step.Flow.Src, SrcPort: p.Src.Port(), DstPort: p.Dst.Port(),
		Payload: data[p.Payload:], Length: max(p.Length-p.Payload, p.Captured),
	}
	if packet.Proto == flow.TCP {
		packet.Seq = be.Uint32(step.Data[p.L4+4:])
	}
	return packet
}

// TestDump is for reading by hand.
func TestDump(t *testing.T) {
	root, out := os.Getenv("DPCLASS_CORPUS"), os.Getenv("DUMP")
	if root == "" || out == "" {
		t.Skip()
	}
	w, _ := os.Create(out)
	defer w.Close()
	b := bufio.NewWriter(w)
	defer b.Flush()
	walkCorpus(t, root, func(g guessed) {
		fmt.Fprintf(b, "%s\t%s\t%s/%s\t%d\t%v\t%s\t%s\t%d\t%q\n", g.guess.protocol, g.file.Set, g.file.Category, g.file.App, g.number, g.proto, g.src, g.dst, g.guess.packets, g.file.Path+" "+string(g.first))
	})
	_ = sort.Strings
	_ = strconv.Itoa
	_ = strings.Fields
}
