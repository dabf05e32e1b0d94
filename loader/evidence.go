// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// The longest name of the kernel is that of package flow, or this does not compile.
var _ = [1]struct{}{}[flow.MaxName-bpfLimitMaxName]

// evidenceTable is the map evidence: what the first payload packets of flows say, by a hash
// of it. An entry never changes, so this process may remember what it stored or read.
type evidenceTable struct {
	m    *ebpf.Map
	seed maphash.Seed

	mu       sync.Mutex
	now, old map[uint64]flow.Evidence // when now is full, it becomes old
}

func newEvidenceTable(m *ebpf.Map) *evidenceTable {
	return &evidenceTable{m: m, seed: maphash.MakeSeed(), now: map[uint64]flow.Evidence{}}
}

// id returns the key of the evidence, 0 if there is nothing to store. The protocol is not
// part of it.
func (t *evidenceTable) id(e *flow.Evidence) uint64 {
	stored := *e
	stored.Protocol = flow.ProtocolUnknown
	if stored == (flow.Evidence{}) {
		return 0
	}
	return max(maphash.Comparable(t.seed, stored), 1)
}

// remembered returns what this process knows about an id. The caller holds mu.
func (t *evidenceTable) remembered(id uint64) (e flow.Evidence, ok bool) {
	if e, ok = t.now[id]; ok {
		return e, true
	}
	if e, ok = t.old[id]; ok {
		t.remember(id, e)
	}
	return e, ok
}

// remember keeps the last max_evidence ids, and at most twice as many.
func (t *evidenceTable) remember(id uint64, e flow.Evidence) {
	if len(t.now) >= int(bpfLimitMaxEvidence) {
		t.now, t.old = map[uint64]flow.Evidence{}, t.now
	}
	t.now[id] = e
}

// store writes evidence by id into the map: what this process has not stored yet, or all of
// it.
func (t *evidenceTable) store(ids []uint64, at func(n int) *flow.Evidence, all bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []uint64
	var values []bpfFlowEvidence
	written := map[uint64]bool{}
	for n, id := range ids {
		if id == 0 || written[id] {
			continue
		}
		if _, known := t.remembered(id); known && !all {
			continue
		}
		written[id] = true
		keys, values = append(keys, id), append(values, encodeEvidence(at(n)))
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := t.m.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("store evidence of %d flows: %w", len(keys), err)
	}
	for n, id := range keys {
		t.remember(id, decodeEvidence(&values[n]))
	}
	return nil
}

// lookup returns evidence by id. It is empty if the kernel has evicted it.
func (t *evidenceTable) lookup(id uint64) (flow.Evidence, error) {
	if id == 0 {
		return flow.Evidence{}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.remembered(id); ok {
		return e, nil
	}
	var value bpfFlowEvidence
	err := t.m.Lookup(id, &value)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return flow.Evidence{}, nil
	}
	if err != nil {
		return flow.Evidence{}, fmt.Errorf("evidence: %w", err)
	}
	e := decodeEvidence(&value)
	t.remember(id, e)
	return e, nil
}

// encodeEvidence returns the kernel's form. A text that is too long for it is cut, a name
// that is too long for a name is left out.
func encodeEvidence(e *flow.Evidence) (out bpfFlowEvidence) {
	if len(e.Name) <= flow.MaxName {
		putText(out.Name[:], e.Name)
		out.NameSource = bpfNameSource(e.NameSource)
		if e.Name != "" && e.Name != flow.HiddenName {
			out.Match = nameKey(e.Name)
		}
	}
	putText(out.Alpn[:], e.ALPN)
	putText(out.Ja4[:], e.JA4)
	return out
}

func decodeEvidence(e *bpfFlowEvidence) flow.Evidence {
	return flow.Evidence{
		Name: text(e.Name[:]), NameSource: flow.NameSource(e.NameSource), ALPN: text(e.Alpn[:]), JA4: text(e.Ja4[:]),
	}
}

// nameKey returns the key that matches a name, of at most flow.MaxName bytes, and, as a
// prefix, all names below it.
func nameKey(name string) (key bpfLpmName) {
	n := copy(key.Reversed[:], name)
	slices.Reverse(key.Reversed[:n])
	key.Reversed[n] = '.'
	key.PrefixLen = uint32(8 * (n + 1))
	return key
}

// putText copies a text into a char array, with a 0 at its end.
func putText(to []int8, s string) {
	for n := range min(len(s), len(to)-1) {
		to[n] = int8(s[n])
	}
}

// text returns the text before the first 0 of a char array.
func text(from []int8) string {
	b := make([]byte, len(from))
	for n, c := range from {
		b[n] = byte(c)
	}
	return cString(b)
}
