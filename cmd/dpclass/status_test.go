// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/internal/capabilities"
	"github.com/dpclass/dpclass/loader"
)

// served is the status of an interface that an agent serves.
func served(now time.Time) loader.Status {
	return loader.Status{
		Iface: "eth0", Mode: "native", Driver: "veth", Ready: true, State: loader.StateReady, Samples: 5, Rules: 2,
		Hooks: []loader.Hook{
			{Name: "ingress", Program: "dpclass_xdp", ProgID: 11, LinkID: 4, State: "attached"},
			{Name: "egress", Program: "dpclass_out", ProgID: 12, LinkID: 5, State: "attached"},
		},
		Flows: 12, FlowsMax: 65536, FastPath: true, Fast: 11, FlowBytes: 400, Memory: 150_000_000, Pending: 1, PendingMax: 65536,
		Counters: map[string]uint64{"not_ip": 17, "fragment": 0, "dns": 4},
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
  hook      ingress attached, program dpclass_xdp (id 11), link 4
  hook      egress attached, program dpclass_out (id 12), link 5
  agent     pid 99, up 1m01s
  model     default
  samples   12/s, 60 in all, 1 shed
  verdicts  12/s, 58 in all, 2.0 samples per batch
  latency   p50 0.48 ms, p99 2.10 ms from packet to verdict
  ring      50.0 % of 4.2 MB
  policy    2 rules
  flows     12 of 65536 (0.0 %) decided, 1 of 65536 (0.0 %) pending; 5 samples per flow
  fast path 11 of the decided flows
  memory    150 MB in the kernel, 400 bytes for a decided flow of IPv4
  counters  dns                                 4
            not_ip                             17`
	if got := strings.Join(statusText(served(now), now, false), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, test := range []struct {
		change func(*loader.Status)
		want   []string
	}{
		{func(s *loader.Status) {
			s.State, s.Ready = loader.StateHung, false
			s.Agent.Updated = now.Add(-12 * time.Second)
		},
			[]string{"eth0  not ready", "it has not reported for 12s", "dpclass detach eth0"}},
		{func(s *loader.Status) { *s = loader.Status{Iface: "eth0", State: loader.StateAttaching} }, []string{"eth0  attaching"}},
		{func(s *loader.Status) { s.Agent.ReloadError = "no such file" }, []string{"eth0  ready", "the models were not changed: no such file"}},
	} {
		s := served(now)
		test.change(&s)
		text := strings.Join(statusText(s, now, false), "\n")
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
	}
	for want, change := range map[string]func(*loader.AgentStats){
		"sandbox   CAP_BPF, CAP_PERFMON; no new privileges; Landlock 7; seccomp filter": func(a *loader.AgentStats) {
			a.Landlock, a.Rights.Seccomp = 7, true
		},
		"sandbox   CAP_BPF, CAP_PERFMON; no new privileges; no Landlock\n": func(*loader.AgentStats) {},
		"sandbox   none: the agent keeps all rights":                       func(a *loader.AgentStats) { a.Rights.NoNewPrivs = false },
	} {
		s := served(now)
		s.Agent.Rights = &capabilities.Rights{Capabilities: []string{"CAP_BPF", "CAP_PERFMON"}, NoNewPrivs: true}
		change(s.Agent)
		if text := strings.Join(statusText(s, now, false), "\n"); !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	loop := served(now)
	loop.Loopback, loop.Hooks = true, loop.Hooks[:1]
	if got := strings.Join(statusText(loop, now, false), "\n"); !strings.Contains(got, "packets   a loopback device: each is sent and received, and is seen once, at ingress") {
		t.Errorf("%s", got)
	}
	alone := served(now)
	alone.Agent, alone.Ready, alone.Counters, alone.Hooks[1].State = nil, false, nil, "stale"
	alone.Evicted = 3000
	got := strings.Join(statusText(alone, now, false), "\n")
	for _, want := range []string{"eth0  not ready", "egress stale", "agent     not running", "counters  all zero", "evicted   3000 undecided flows left"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

// TestStatusJSON holds the names of the fields, which scripts rely on.
func TestStatusJSON(t *testing.T) {
	want := served(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	want.Agent.LastError, want.Agent.ReloadError = "slow", "no such file"
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		of   any
		want string
	}{
		{fields, "agent attached clsact counters driver ended evicted fast fast_path flow_bytes flows flows_max hooks iface loopback memory mode netns pending pending_max ready rules samples state vlan"},
		{fields["hooks"].([]any)[0], "link_id name prog_id program state"},
		{fields["agent"], "batch_mean batches classify landlock last_error model p50_ms p99_ms pid ready reload_error reloads rights ring_bytes ring_used samples samples_per_s " +
			"shed started updated verdicts verdicts_per_s"},
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(test.of.(map[string]any))), " "); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	if !strings.Contains(string(data), `"p50_ms":0.48`) {
		t.Errorf("no milliseconds: %s", data)
	}
	var got loader.Status
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back: %v\n%+v\n%+v", err, got, want)
	}
}
