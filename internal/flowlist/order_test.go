// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

func TestRates(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	old, young := *call443(), *undecided6()
	old.Bytes, old.FirstSeen = 1000, start.Add(-time.Minute)
	var last Rates
	if rows := last.Rows([]flow.Record{old}, start); rows[0].Rate != 0 {
		t.Errorf("a rate from one read: %v", rows[0].Rate)
	}
	old.Bytes += 250
	young.Bytes, young.FirstSeen = 500, start.Add(time.Second)
	rows := last.Rows([]flow.Record{old, young}, start.Add(2*time.Second))
	if rows[0].Rate != 1000 || rows[1].Rate != 2000 {
		t.Errorf("rates %v, %v", rows[0].Rate, rows[1].Rate)
	}
	reused := old
	reused.Bytes, reused.FirstSeen = 125, start.Add(3*time.Second)
	reused.Live = &flow.Live{Generation: old.Generation + 1}
	if rows := last.Rows([]flow.Record{reused}, start.Add(4*time.Second)); rows[0].Rate != 500 {
		t.Errorf("rate of a key in its next life: %v", rows[0].Rate)
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
	names := map[*flow.Record]string{a: "a", b: "b", c: "c"}
	for key, want := range map[string]string{
		"rate": "bca", "bytes": "cba", "packets": "abc", "dropped": "bca", "last": "abc", "first": "cba",
		"category": "bac", "app": "bac", "src": "abc", "dst": "bac",
	} {
		rows := []Row{{c, 5}, {a, 1}, {b, 9}}
		Sort(rows, key)
		got := ""
		for _, r := range rows {
			got += names[r.Record]
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
