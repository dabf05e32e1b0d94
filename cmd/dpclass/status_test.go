// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/loader"
)

// served is the status of an interface that an agent serves.
func served(now time.Time) loader.Status {
	return loader.Status{
		Iface: "eth0", Mode: "native", Driver: "veth", Ready: true, Samples: 5, Rules: 2,
		Hooks: []loader.Hook{
			{Name: "xdp", Program: "dpclass_xdp", ProgID: 11, LinkID: 4, State: "attached"},
			{Name: "tcx egress", Program: "dpclass_egress", ProgID: 12, LinkID: 5, State: "attached"},
		},
		Flows: 12, FlowsMax: 65536, Pending: 1, PendingMax: 65536,
		Counters: map[string]uint64{"not-ip": 17, "fragment": 0, "dns": 4},
		Agent: &loader.AgentStats{
			PID: 99, Model: []string{"default"}, Started: now.Add(-61 * time.Second), Updated: now, Samples: 60, Verdicts: 58, Shed: 1, Batches: 30,
			SamplesPerSecond: 12.4, VerdictsPerSecond: 12, BatchMean: 2, P50: loader.Milliseconds(480 * time.Microsecond), P99: loader.Milliseconds(2100 * time.Microsecond),
			RingBytes: 4 << 20, RingUsed: 2 << 20, Classify: true, Ready: true,
		},
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const want = `eth0  ready
  mode      native, driver veth
  hook      xdp attached, program dpclass_xdp (id 11), link 4
  hook      tcx egress attached, program dpclass_egress (id 12), link 5
  agent     pid 99, up 1m01s
  model     default
  samples   12/s, 60 in all, 1 shed
  verdicts  12/s, 58 in all, 2.0 samples per batch
  latency   p50 0.48 ms, p99 2.10 ms from packet to verdict
  ring      50.0 % of 4.2 MB
  policy    2 rules
  flows     12 of 65536 (0.0 %) decided, 1 of 65536 (0.0 %) pending; 5 samples per flow
  counters  dns                                 4
            not-ip                             17`
	if got := strings.Join(statusText(served(now), now, false), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	alone := served(now)
	alone.Agent, alone.Ready, alone.Counters, alone.Hooks[1].State = nil, false, nil, "stale"
	got := strings.Join(statusText(alone, now, false), "\n")
	for _, want := range []string{"eth0  not ready", "tcx egress stale", "agent     none", "counters  all zero"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	data, err := json.Marshal(served(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ready":true`, `"p50_ms":0.48`, `"p99_ms":2.1`, `"not-ip":17`, `"samples_per_s":12.4`, `"state":"attached"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is missing in %s", want, data)
		}
	}
}
