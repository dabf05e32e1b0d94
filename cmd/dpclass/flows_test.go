// SPDX-License-Identifier: Apache-2.0

package main

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
	var last reading
	if rows := last.rate([]flow.Record{old}, start); rows[0].rate != 0 {
		t.Errorf("a rate from one read: %v", rows[0].rate)
	}
	old.Bytes += 250
	young.Bytes, young.FirstSeen = 500, start.Add(time.Second)
	rows := last.rate([]flow.Record{old, young}, start.Add(2*time.Second))
	if rows[0].rate != 1000 || rows[1].rate != 2000 {
		t.Errorf("rates %v, %v", rows[0].rate, rows[1].rate)
	}
	reused := old
	reused.Bytes, reused.FirstSeen = 125, start.Add(3*time.Second)
	reused.Live = &flow.Live{Generation: old.Generation + 1}
	if rows := last.rate([]flow.Record{reused}, start.Add(4*time.Second)); rows[0].rate != 500 {
		t.Errorf("rate of a key in its next life: %v", rows[0].rate)
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
		rows := []row{{c, 5}, {a, 1}, {b, 9}}
		sortRows(rows, key)
		got := ""
		for _, r := range rows {
			got += names[r.Record]
		}
		if got != want {
			t.Errorf("by %s: %s, want %s", key, got, want)
		}
	}
	if len(sortKeys()) != len(orders) {
		t.Error("keys are missing")
	}
	for key, order := range watchKeys {
		if orders[order] == nil || !strings.Contains(watchHelp, string(key)+" "+order) {
			t.Errorf("key %c sorts by %q", key, order)
		}
	}
}

func TestFlowsUsage(t *testing.T) {
	for _, args := range []string{
		"flows --filter prt:1", "flows --sort size", "flows --limit -1", "flows --watch -o json", "flows --interval 1ms", "flows eth0 eth1",
		"flows set eth0", "flows set eth0 nonsense --category voip",
	} {
		code, _, errOut := call(t, "", strings.Fields(args)...)
		if code != exitUsage {
			t.Errorf("%s: exit %d: %s", args, code, errOut)
		}
		checkError(t, errOut)
	}
	if code, _, errOut := call(t, "", "flows", "set", "eth0", "tcp 10.0.0.1:1 10.0.0.2:2"); code != exitUsage || !strings.Contains(errOut, "give --category") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestAttachUsage(t *testing.T) {
	for _, args := range []string{
		"attach", "attach lo lo", "attach lo --mode generic", "attach lo --direction up", "attach lo --samples 300", "attach lo --samples -1",
		"attach lo --min-confidence 2", "attach lo --no-classify --model default", "attach lo --log-format xml",
		"detach", "detach --all lo", "detach --all --netns x", "status a b", "policy apply eth0", "policy show", "policy clear", "policy check",
	} {
		code, out, errOut := call(t, "", strings.Fields(args)...)
		if code != exitUsage || out != "" {
			t.Errorf("%s: exit %d: %s%s", args, code, out, errOut)
		}
		checkError(t, errOut)
	}
	bad := write(t, "bad.yaml", "version: 3\n")
	if code, _, errOut := call(t, "", "attach", "no-such-iface", "--no-classify", "--policy", bad); code != exitFailed || !strings.Contains(errOut, "bad.yaml:1:10") {
		t.Errorf("the policy is not checked first: exit %d: %s", code, errOut)
	}
}

func TestCheckLabel(t *testing.T) {
	beyond := append(append([]string{}, flow.Vocabulary...), "gaming")
	for name, ok := range map[string]bool{"": true, "voip": true, "unknown": true, "gaming": true, "skype": false, "viop": false} {
		err := checkLabel("category", name, flow.Categories, beyond)
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if name == "viop" && !strings.Contains(err.Error(), `did you mean "voip"?`) {
			t.Errorf("%v", err)
		}
	}
}
