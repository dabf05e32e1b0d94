// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

func TestLatencies(t *testing.T) {
	var l latencies
	if p50, p99 := l.quantiles(); p50 != 0 || p99 != 0 {
		t.Errorf("none: %s, %s", p50, p99)
	}
	for i := range int64(100) {
		l.newest[i] = (100 - i) * int64(time.Millisecond)
	}
	l.count = 100
	if p50, p99 := l.quantiles(); p50 != 50*time.Millisecond || p99 != 99*time.Millisecond {
		t.Errorf("got %s, %s", p50, p99)
	}
}

func TestLatenciesKeepTheNewest(t *testing.T) {
	var l latencies
	now, ok := monotonic()
	if !ok {
		t.Fatal("no monotonic clock")
	}
	decisions := make([]flow.Decision, len(l.newest))
	for _, at := range []int64{1, now} { // since boot, and just now
		for i := range decisions {
			decisions[i].Time = at
		}
		l.add(decisions)
	}
	l.add([]flow.Decision{{}}) // an operator's verdict has no time
	if l.count != uint64(2*len(decisions)) {
		t.Errorf("count %d", l.count)
	}
	if p50, p99 := l.quantiles(); p50 < 0 || int64(p99) > now/2 {
		t.Errorf("got %s, %s: the old times are still there", p50, p99)
	}
}

func TestRates(t *testing.T) {
	var r rates
	start := time.Now()
	if s, v := r.next(start, 100, 50); s != 0 || v != 0 {
		t.Errorf("from one reading: %v, %v", s, v)
	}
	if s, v := r.next(start.Add(2*time.Second), 300, 60); s != 100 || v != 5 {
		t.Errorf("got %v, %v", s, v)
	}
}

func TestUnlisted(t *testing.T) {
	if name, ok := unlisted([]string{"a", "b"}, []string{"b", "a", "c"}); ok {
		t.Errorf("%q", name)
	}
	if name, ok := unlisted([]string{"a", "x"}, []string{"a"}); !ok || name != "x" {
		t.Errorf("%q, %t", name, ok)
	}
}
