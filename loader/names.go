// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/bpf"
	"github.com/dpclass/dpclass/flow"
)

// maxName is the length of a name in the map labels.
const maxName = 64

// nameTable is the map labels: label numbers and their names from 0 up, and
// names of models from the highest number down.
type nameTable struct {
	mu    sync.RWMutex
	m     *ebpf.Map
	names []string
	ids   map[string]uint8 // of labels
	low   int              // numbers from here on are models
}

func (t *nameTable) load(m *ebpf.Map) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m = m
	t.names = make([]string, m.MaxEntries())
	for n := range t.names {
		var value [maxName]byte
		if err := m.Lookup(uint32(n), &value); err != nil {
			return fmt.Errorf("label %d: %w", n, err)
		}
		t.names[n] = cString(value[:])
	}
	t.ids = map[string]uint8{}
	end := 1
	for ; end < len(t.names) && t.names[end] != ""; end++ {
		t.ids[t.names[end]] = uint8(end)
	}
	t.low = len(t.names)
	for t.low > end && t.names[t.low-1] != "" {
		t.low--
	}
	return nil
}

// write stores the vocabulary and the names that go beyond it. Where the table was
// loaded before, its names keep their numbers: verdicts and rules have them.
func (t *nameTable) write(m *ebpf.Map, more []string) error {
	names := append([]string{}, flow.Vocabulary...)
	have := map[string]bool{}
	for _, name := range names {
		have[name] = true
	}
	limit, end := int(m.MaxEntries())-8, int(m.MaxEntries())
	if t.m != nil {
		more = append(t.labels(), more...)
		limit, end = min(limit, t.low), t.low // the models' names stay
	}
	for _, name := range more {
		if !have[name] {
			names = append(names, name)
			have[name] = true
		}
	}
	if len(names) > limit {
		return fmt.Errorf("%d labels: at most %d fit", len(names), limit)
	}
	for n := range uint32(end) {
		var value [maxName]byte
		if int(n) < len(names) {
			if len(names[n]) >= maxName {
				return fmt.Errorf("label %q: longer than %d bytes", names[n], maxName-1)
			}
			copy(value[:], names[n])
		}
		if err := m.Put(n, &value); err != nil {
			return fmt.Errorf("store label %d: %w", n, err)
		}
	}
	return t.load(m)
}

// label returns the number of a label.
func (t *nameTable) label(name string) (bpf.DpclassLabel, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if name == "" {
		return bpf.DpclassLabelUndecided, nil
	}
	if id, ok := t.ids[name]; ok {
		return bpf.DpclassLabel(id), nil
	}
	return 0, fmt.Errorf("label %q is not one of this interface's", name)
}

func (t *nameTable) name(id uint8) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if int(id) >= len(t.names) {
		return ""
	}
	return t.names[id]
}

// model returns the number of a model's name, and gives it one where it has none.
func (t *nameTable) model(name string) uint8 {
	if name == "" {
		return 0
	}
	t.mu.RLock()
	for n := t.low; n < len(t.names); n++ {
		if t.names[n] == name {
			t.mu.RUnlock()
			return uint8(n)
		}
	}
	t.mu.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	var value [maxName]byte
	copy(value[:maxName-1], name)
	if t.low-1 <= len(t.ids)+1 || t.m.Put(uint32(t.low-1), &value) != nil {
		return 0
	}
	t.low--
	t.names[t.low] = cString(value[:])
	return uint8(t.low)
}

func (t *nameTable) labels() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return append([]string{}, t.names[1:len(t.ids)+1]...)
}

// Labels returns the names that a verdict of this interface may have.
func (i *Interface) Labels() []string { return i.names.labels() }

func cString(b []byte) string {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	return string(b)
}
