// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

func TestRates(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	old, young := *call443(), *undecided6()
	old.Bytes, old.FirstSeen = 1000, start.Add(-time.Minute)
	last := newRates()
	rates := func(after time.Duration, records ...*flow.Record) (all []float64) {
		l := last.list(slices.Values(records), start.Add(after))
		for i := range l.n {
			all = append(all, l.at(uint32(i)).rate)
		}
		return all
	}
	if got := rates(0, &old); !slices.Equal(got, []float64{0}) {
		t.Errorf("rates of one read: %v", got)
	}
	old.Bytes += 250
	young.Bytes, young.FirstSeen = 500, start.Add(time.Second)
	if got := rates(2*time.Second, &old, &young); !slices.Equal(got, []float64{1000, 2000}) {
		t.Errorf("rates %v", got)
	}
	reused := old
	reused.Bytes, reused.FirstSeen = 125, start.Add(3*time.Second)
	reused.Live = &flow.Live{Generation: old.Generation + 1}
	if got := rates(4*time.Second, &reused); !slices.Equal(got, []float64{500}) {
		t.Errorf("rate of a key in its next life: %v", got)
	}
	// What the policy drops is not part of the rate.
	policed := *call443()
	policed.Bytes, policed.DroppedBytes, policed.FirstSeen = 1000, 400, start
	last.list(slices.Values([]*flow.Record{&policed}), start.Add(4*time.Second))
	policed.Bytes, policed.DroppedBytes = 4000, 2900
	l := last.list(slices.Values([]*flow.Record{&policed}), start.Add(5*time.Second))
	if r := l.at(0); r.rate != 500*8 || r.dropRate != 2500*8 {
		t.Errorf("a policed flow: %v passes, %v is dropped", r.rate, r.dropRate)
	}
	l.keep(func(*flow.Record) bool { return true })
	for row := range l.rows(-1) {
		if row.Record.Rate != 500*8 || row.DroppedRate != 2500*8 || row.Live.DroppedBytes != 2900 {
			t.Errorf("as a record: %+v", row.Live)
		}
	}
	// Noting the bytes is enough for the rates of the next read.
	if n := last.note(slices.Values([]*flow.Record{&reused}), start.Add(5*time.Second)); n != 1 {
		t.Errorf("%d flows", n)
	}
	reused.Bytes += 25
	if got := rates(6*time.Second, &reused); !slices.Equal(got, []float64{200}) {
		t.Errorf("rate after noting: %v", got)
	}
}

func TestSortRows(t *testing.T) {
	a, b, c := call443(), call443(), undecided6()
	a.Bytes, b.Bytes, c.Bytes = 10, 20, 30
	a.Packets, b.Packets, c.Packets = 3, 2, 1
	b.Category, b.App, b.Dropped = "chat", "aim", 1
	b.Src = b.Src.Next()
	now := time.Now()
	a.FirstSeen, b.FirstSeen, c.FirstSeen = now, now.Add(1), now.Add(2)
	a.LastSeen, b.LastSeen, c.LastSeen = now.Add(2), now.Add(1), now
	a.ALPN, b.ALPN, c.ALPN = "a", "b", "c"
	for key, want := range map[string]string{
		"rate": "bca", "bytes": "cba", "packets": "abc", "dropped": "bca", "last": "abc", "first": "cba",
		"category": "bac", "app": "bac", "src": "abc", "dst": "bac",
	} {
		l := newList(maphash.MakeSeed())
		for i, r := range []*flow.Record{c, a, b} {
			l.add(r).rate = []float64{5, 1, 9}[i]
		}
		l.keep(func(*flow.Record) bool { return true })
		l.sort(key)
		got := ""
		for r := range l.rows(-1) {
			got += r.ALPN
		}
		if got != want {
			t.Errorf("by %s: %s, want %s", key, got, want)
		}
	}
	if len(SortKeys()) != len(orders) {
		t.Error("keys are missing")
	}
	for key, order := range watchKeys {
		if orders[order] == nil || !strings.Contains(watchHelp, string(key)+" "+order) {
			t.Errorf("key %c sorts by %q", key, order)
		}
	}
}
