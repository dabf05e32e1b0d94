// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// Numbers of the map labels.
const (
	firstOwn   = int(bpfLimitOwnLabels)
	maxLabels  = int(bpfLimitMaxLabels)
	modelNames = 8 // minimum of numbers that are left for names of models
)

type storedName [bpfLimitNameLen]byte

// nameTable is the pinned map labels: the names of labels and of models by number.
// Labels of the vocabulary have their own numbers, other labels get numbers from
// firstOwn up, names of models from the highest number down. A name keeps its
// number as long as the map exists, because verdicts and rules contain it.
type nameTable struct {
	mu     sync.RWMutex
	m      *ebpf.Map
	names  [maxLabels]string
	labels map[string]uint16
	own    int // next number for a label beyond the vocabulary
	low    int // names of models have the numbers from here on
}

// load reads the map.
func (t *nameTable) load(m *ebpf.Map) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m, t.labels = m, map[string]uint16{}
	var cursor ebpf.MapBatchCursor
	numbers, values := make([]uint32, maxLabels), make([]storedName, maxLabels)
	read, err := m.BatchLookup(&cursor, numbers, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("labels: %w", err)
	}
	for n := range read {
		t.names[numbers[n]] = cString(values[n][:])
	}
	t.own = firstOwn
	for t.own < maxLabels && t.names[t.own] != "" {
		t.own++
	}
	t.low = maxLabels
	for t.low > t.own && t.names[t.low-1] != "" {
		t.low--
	}
	for n := 1; n < t.own; n++ {
		if t.names[n] != "" {
			t.labels[t.names[n]] = uint16(n)
		}
	}
	return nil
}

// extend adds the labels that the table lacks. A label of the vocabulary gets its index
// as number, unless a label of an older table has that number.
func (t *nameTable) extend(vocabulary, more []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, name := range slices.Concat(vocabulary, more) {
		if _, known := t.labels[name]; known || name == "" {
			continue
		}
		if n >= len(vocabulary) || t.names[n] != "" {
			if n = t.own; n >= min(t.low, maxLabels-modelNames) {
				return fmt.Errorf("label %q: no room for more than %d labels", name, len(t.labels))
			}
			t.own++
		}
		if err := t.put(n, name); err != nil {
			return err
		}
		t.labels[name] = uint16(n)
	}
	return nil
}

func (t *nameTable) put(n int, name string) error {
	var value storedName
	if len(name) >= len(value) {
		return fmt.Errorf("name %q: longer than %d bytes", name, len(value)-1)
	}
	copy(value[:], name)
	if err := t.m.Put(uint32(n), &value); err != nil {
		return fmt.Errorf("store name %d: %w", n, err)
	}
	t.names[n] = name
	return nil
}

// label returns the number of a label.
func (t *nameTable) label(name string) (bpfLabel, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if name == "" {
		return bpfLabelUndecided, nil
	}
	if id, ok := t.labels[name]; ok {
		return bpfLabel(id), nil
	}
	return 0, fmt.Errorf("the interface has no label %q", name)
}

func (t *nameTable) name(id uint16) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.names[id]
}

// model returns the number of a model's name and gives a new name one. It returns 0 if
// no number is left.
func (t *nameTable) model(name string) uint16 {
	if name == "" {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := t.low; n < maxLabels; n++ {
		if t.names[n] == name {
			return uint16(n)
		}
	}
	// A free number stays between the labels and the models, so that load tells them apart.
	if t.low-1 <= t.own || t.put(t.low-1, name) != nil {
		return 0
	}
	t.low--
	return uint16(t.low)
}

// list returns the labels by number.
func (t *nameTable) list() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var names []string
	for _, name := range t.names[1:t.own] {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// cString returns the text before the first 0.
func cString(b []byte) string {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	return string(b)
}
