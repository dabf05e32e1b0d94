// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
)

// labDir names a directory that dplab traffic has made, with several captures of each
// category: dplab traffic --quick --minutes 15.
const labDir = "DPLAB_TRAFFIC"

// example is one TCP flow with the fields that must not tell its category.
type example struct {
	capture, category string
	fields            []float64
}

// TestFieldsTellNothing trains a small tree on addresses, ports, TTL, MSS and TCP options
// alone. Tested on captures that it has not seen, it must be little better than chance.
func TestFieldsTellNothing(t *testing.T) {
	dir := os.Getenv(labDir)
	if dir == "" {
		t.Skipf("SKIPPED: %s does not name a directory that dplab traffic --quick --minutes 15 has made", labDir)
	}
	captures, err := dataset.ReadManifest(filepath.Join(dir, "manifest.csv"), "")
	if err != nil {
		t.Fatal(err)
	}
	var examples []example
	for _, c := range captures {
		if !c.VPN {
			examples = append(examples, readExamples(t, c)...)
		}
	}
	const folds = 5
	names := map[string]int{} // captures, by category
	folder := map[string]int{}
	for _, e := range examples {
		if _, seen := folder[e.capture]; !seen {
			folder[e.capture] = names[e.category] % folds
			names[e.category]++
		}
	}
	right, all := map[string]float64{}, map[string]float64{}
	for fold := range folds {
		var train, test []example
		for _, e := range examples {
			if folder[e.capture] == fold {
				test = append(test, e)
			} else {
				train = append(train, e)
			}
		}
		tree := grow(train, weights(train), 5)
		for _, e := range test {
			all[e.category]++
			if tree.category(e.fields) == e.category {
				right[e.category]++
			}
		}
	}
	recall := 0.
	for _, category := range slices.Sorted(maps.Keys(all)) {
		t.Logf("%-14s %3d captures %5.0f flows, recall %.2f", category, names[category], all[category], right[category]/all[category])
		if names[category] < folds {
			t.Errorf("%s has %d captures, want %d: make a longer run", category, names[category], folds)
		}
		recall += right[category] / all[category] / float64(len(all))
	}
	chance := 1 / float64(len(all))
	t.Logf("balanced accuracy %.3f, chance is %.3f", recall, chance)
	if recall > 2*chance {
		t.Errorf("balanced accuracy %.3f on fields that say nothing, want at most twice the chance of %.3f", recall, chance)
	}
}

// readExamples returns the TCP flows of a capture that begin with a SYN and its answer.
func readExamples(t *testing.T, c dataset.Capture) []example {
	t.Helper()
	reader, err := capture.Open(c.File)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	syns := map[int][]float64{} // by flow
	var examples []example
	for {
		step, err := walker.Next()
		if errors.Is(err, io.EOF) {
			return examples
		}
		if err != nil {
			t.Fatal(err)
		}
		tcp := step.Data[step.Packet.L4:]
		if step.Packet.Proto != 6 || tcp[13]&2 == 0 {
			continue
		}
		ttl := step.Data[8]
		if step.Data[0]>>4 == 6 {
			ttl = step.Data[7]
		}
		source := step.Packet.Src.Addr().As16()
		fields := []float64{float64(binary.BigEndian.Uint32(source[:4])), float64(binary.BigEndian.Uint32(source[12:])), float64(step.Packet.Src.Port()), float64(ttl)}
		fields = append(fields, tcpOptions(tcp[20:step.Packet.Payload-step.Packet.L4])...)
		switch {
		case tcp[13]&0x10 == 0:
			syns[step.Flow.Number] = fields
		case syns[step.Flow.Number] != nil:
			examples = append(examples, example{capture: c.Path, category: c.Category, fields: append(syns[step.Flow.Number], fields...)})
			delete(syns, step.Flow.Number)
		}
	}
}

// tcpOptions returns the MSS, the window scale (-1: none), and whether SACK and time
// stamps are permitted.
func tcpOptions(options []byte) []float64 {
	mss, scale, sack, stamps := 0., -1., 0., 0.
	for len(options) > 1 && options[0] != 0 {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		switch options[0] {
		case 2:
			mss = float64(binary.BigEndian.Uint16(options[2:]))
		case 3:
			scale = float64(options[2])
		case 4:
			sack = 1
		case 8:
			stamps = 1
		}
		options = options[min(max(2, int(options[1])), len(options)):]
	}
	return []float64{mss, scale, sack, stamps}
}

// weights makes all categories equally heavy, and in a category all captures.
func weights(examples []example) []float64 {
	flows, captures := map[string]float64{}, map[string]float64{}
	for _, e := range examples {
		if flows[e.capture] == 0 {
			captures[e.category]++
		}
		flows[e.capture]++
	}
	w := make([]float64, len(examples))
	for i, e := range examples {
		w[i] = 1 / flows[e.capture] / captures[e.category]
	}
	return w
}

// node is a node of a decision tree; a leaf has no children.
type node struct {
	leaf      string
	field     int
	threshold float64
	low, high *node
}

func (n *node) category(fields []float64) string {
	for n.low != nil {
		if fields[n.field] <= n.threshold {
			n = n.low
		} else {
			n = n.high
		}
	}
	return n.leaf
}

// grow grows a tree by Gini impurity.
func grow(examples []example, weight []float64, depth int) *node {
	total, sum := map[string]float64{}, 0.
	for i, e := range examples {
		total[e.category] += weight[i]
		sum += weight[i]
	}
	n := &node{}
	for _, category := range slices.Sorted(maps.Keys(total)) {
		if n.leaf == "" || total[category] > total[n.leaf] {
			n.leaf = category
		}
	}
	if depth == 0 || len(total) < 2 {
		return n
	}
	purity := func(by map[string]float64, sum float64) (p float64) {
		for _, w := range by {
			p += w * w / sum
		}
		return p
	}
	best, order := purity(total, sum)+1e-9, make([]int, len(examples))
	found := false
	for field := range examples[0].fields {
		for i := range order {
			order[i] = i
		}
		sort.Slice(order, func(a, b int) bool { return examples[order[a]].fields[field] < examples[order[b]].fields[field] })
		low, high, lowSum := map[string]float64{}, maps.Clone(total), 0.
		for k, i := range order[:len(order)-1] {
			e := examples[i]
			low[e.category] += weight[i]
			high[e.category] -= weight[i]
			lowSum += weight[i]
			next := examples[order[k+1]].fields[field]
			if next == e.fields[field] || lowSum < sum/100 || sum-lowSum < sum/100 {
				continue
			}
			if p := purity(low, lowSum) + purity(high, sum-lowSum); p > best {
				best, found, n.field, n.threshold = p, true, field, (e.fields[field]+next)/2
			}
		}
	}
	if !found {
		return n
	}
	var parts [2][]example
	var partWeights [2][]float64
	for i, e := range examples {
		side := 0
		if e.fields[n.field] > n.threshold {
			side = 1
		}
		parts[side], partWeights[side] = append(parts[side], e), append(partWeights[side], weight[i])
	}
	n.low, n.high = grow(parts[0], partWeights[0], depth-1), grow(parts[1], partWeights[1], depth-1)
	return n
}
