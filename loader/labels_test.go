// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

func newLabelMap(t *testing.T) *ebpf.Map {
	t.Helper()
	needRoot(t)
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(spec.Maps["labels"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// tableOf reads the map as the next process does.
func tableOf(t *testing.T, m *ebpf.Map, vocabulary []string, more ...string) *nameTable {
	t.Helper()
	table := &nameTable{}
	if err := table.load(m); err != nil {
		t.Fatal(err)
	}
	if err := table.extend(vocabulary, more); err != nil {
		t.Fatal(err)
	}
	return table
}

func (t *nameTable) number(test *testing.T, label string) int {
	test.Helper()
	n, err := t.label(label)
	if err != nil {
		test.Fatal(err)
	}
	return int(n)
}

// TestGrownVocabulary: a table that an older vocabulary wrote is taken over by a newer one. What verdicts and rules
// hold keeps its number.
func TestGrownVocabulary(t *testing.T) {
	t.Parallel()
	m := newLabelMap(t)
	const older = 20
	old := tableOf(t, m, flow.Vocabulary[:older], "gaming", "radio")
	model := old.model("mine")

	grown := tableOf(t, m, flow.Vocabulary, "gaming", "backup")
	for n, name := range flow.Vocabulary[1:] {
		if got := grown.number(t, name); got != n+1 {
			t.Errorf("label %q has number %d, want %d", name, got, n+1)
		}
	}
	for name, want := range map[string]int{"gaming": firstOwn, "radio": firstOwn + 1, "backup": firstOwn + 2} {
		if got := grown.number(t, name); got != want || grown.name(uint16(want)) != name {
			t.Errorf("label %q has number %d, want %d", name, got, want)
		}
	}
	if got := grown.model("mine"); got != model || grown.name(model) != "mine" {
		t.Errorf("the model has number %d, want %d", got, model)
	}
	if got, want := grown.list(), slices.Concat(flow.Vocabulary[1:], []string{"gaming", "radio", "backup"}); !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
}

// TestForeignNumbers: a number of the vocabulary that another label has in the pinned table stays with that label.
func TestForeignNumbers(t *testing.T) {
	t.Parallel()
	m := newLabelMap(t)
	dense := slices.Concat(flow.Vocabulary[:20], []string{"gaming"})
	tableOf(t, m, dense)
	table := tableOf(t, m, flow.Vocabulary)
	if got := table.number(t, "gaming"); got != 20 {
		t.Errorf("label %q has number %d, want 20", "gaming", got)
	}
	if got := table.number(t, flow.Vocabulary[20]); got != firstOwn {
		t.Errorf("label %q has number %d, want %d", flow.Vocabulary[20], got, firstOwn)
	}
	if got := table.number(t, flow.Vocabulary[21]); got != 21 {
		t.Errorf("label %q has number %d, want 21", flow.Vocabulary[21], got)
	}
}

func TestFullLabelTable(t *testing.T) {
	t.Parallel()
	table := tableOf(t, newLabelMap(t), flow.Vocabulary)
	var own []string
	for n := range maxLabels - modelNames - firstOwn {
		own = append(own, fmt.Sprintf("own-%d", n))
	}
	if err := table.extend(flow.Vocabulary, own); err != nil {
		t.Fatal(err)
	}
	if err := table.extend(nil, []string{"more"}); err == nil {
		t.Error("one label more than there is room for was stored")
	}
	numbers := map[uint16]bool{}
	for n := range modelNames + 1 {
		numbers[table.model(fmt.Sprintf("model-%d", n))] = true
	}
	if len(numbers) != modelNames || !numbers[0] {
		t.Errorf("numbers of %d models: %v", modelNames+1, numbers)
	}
	if err := table.extend(nil, []string{strings.Repeat("x", int(bpfLimitNameLen))}); err == nil {
		t.Error("a name that is too long was stored")
	}
}
