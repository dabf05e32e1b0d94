// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

const policeRules = `version: 1
rules:
  - match: {category: streaming}
    action: {rate: 4mbit, scope: class}
  - match: {category: voip}
    action: {rate: 2mbit, scope: flow}
  - match: {category: file-transfer}
    action: {rate: 20mbit, scope: class}
`

// policeLoad is a UDP load of iperf3, three times over what it is policed to.
type policeLoad struct {
	port     int
	addr     string
	category string
	reverse  bool // the server sends: out of the interface
}

func (l policeLoad) key(t *testing.T, r *lab.Routed) flow.Key {
	client := r.ClientAddr4
	if l.addr == r.ServerAddr6 {
		client = "[" + r.ClientAddr6 + "]"
		return parseKey(t, fmt.Sprintf("udp %s:%d [%s]:%d", client, l.port+1000, l.addr, l.port))
	}
	return parseKey(t, fmt.Sprintf("udp %s:%d %s:%d", client, l.port+1000, l.addr, l.port))
}

// testPolice polices UDP by class and by flow, both ways: what the receiver gets
// is within 15 % of the rate.
func testPolice(t *testing.T, s *suite) {
	rules := save(t, "police.yaml", policeRules)
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			ctx := testContext(t)
			r := routed(t, lab.Topology{})
			loads := []policeLoad{
				{5201, r.ServerAddr4, "streaming", false},
				{5202, r.ServerAddr6, "streaming", false}, // shares the bucket
				{5203, r.ServerAddr4, "streaming", true},  // the other direction has its own
				{5204, r.ServerAddr4, "voip", false},
				{5205, r.ServerAddr6, "voip", false}, // has its own
				{5206, r.ServerAddr4, "voip", true},
			}
			s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify", "--policy", rules)
			var programs []*lab.Process
			for _, load := range loads {
				p, err := r.Server.IperfServer(ctx, load.port)
				if err != nil {
					t.Fatal(err)
				}
				programs = append(programs, p)
			}
			stopServer, stopClient := start(t, r.Server, "eth0", "udp"), start(t, r.Client, "eth0", "udp")
			for _, load := range loads {
				p, err := r.Client.Start(ctx, "iperf3", lab.Iperf{
					Server: load.addr, Port: load.port, ClientPort: load.port + 1000, UDP: true,
					Rate: "10M", Length: 1000, Time: time.Minute, Reverse: load.reverse,
				}.Args()...)
				if err != nil {
					t.Fatal(err)
				}
				programs = append(programs, p)
			}
			for _, load := range loads {
				s.waitFlow(t, r.Router, "eth0", load.key(t, r))
				s.set(t, r.Router, load.key(t, r), "--category", load.category)
			}
			// Behind the burst: 128 kB are gone in 0.2 s.
			from := time.Now().Add(400 * time.Millisecond)
			time.Sleep(time.Until(from.Add(2 * time.Second)))
			for _, p := range programs {
				p.Signal(unix.SIGKILL)
			}
			server, client := stopServer(), stopClient()
			flows := s.flows(t, r.Router, "eth0")
			in, out := count(t, server, from), count(t, client, from)
			rate := func(counts map[flow.Key]*tally, ports ...int) float64 {
				var bytes uint64
				var last time.Time
				for _, load := range loads {
					for _, port := range ports {
						c := counts[load.key(t, r)]
						if load.port != port || c == nil {
							continue
						}
						bytes += c.bytes
						if c.last.After(last) {
							last = c.last
						}
					}
				}
				return float64(bytes) * 8 / last.Sub(from).Seconds() / 1e6
			}
			for _, check := range []struct {
				what string
				got  float64
				want float64 // Mbit/s
			}{
				{"class, in, two flows", rate(in, 5201, 5202), 4},
				{"class, out", rate(out, 5203), 4},
				{"flow, in, IPv4", rate(in, 5204), 2},
				{"flow, in, IPv6", rate(in, 5205), 2},
				{"flow, out", rate(out, 5206), 2},
			} {
				t.Logf("%s: %.2f Mbit/s, rate %.0f", check.what, check.got, check.want)
				if check.got < .85*check.want || check.got > 1.15*check.want {
					t.Errorf("%s: %.2f Mbit/s, want %.0f within 15 %%", check.what, check.got, check.want)
				}
			}
			// What the kernel says it dropped is the same in flows and in rules.
			var dropped uint64
			for _, record := range flows {
				dropped += record.Dropped
			}
			var ruleDrops uint64
			for _, rule := range s.rules(t, r.Router) {
				ruleDrops += rule.Counters.Dropped
			}
			if dropped == 0 || dropped != ruleDrops {
				t.Errorf("flows dropped %d packets, rules %d", dropped, ruleDrops)
			}
			if mode == "tc" {
				logGoodput(t, s, r)
			}
		})
	}
}

// logGoodput tells what TCP makes of a policer; nothing is asserted.
func logGoodput(t *testing.T, s *suite, r *lab.Routed) {
	t.Helper()
	if _, err := r.Server.IperfServer(testContext(t), 5301); err != nil {
		t.Fatal(err)
	}
	load := lab.Iperf{Server: r.ServerAddr4, Port: 5301, ClientPort: 7000, Time: 30 * time.Second}
	sender, err := r.Client.Start(testContext(t), "iperf3", load.Args()...)
	if err != nil {
		t.Fatal(err)
	}
	key := parseKey(t, fmt.Sprintf("tcp %s:7000 %s:5301", r.ClientAddr4, r.ServerAddr4))
	s.waitFlow(t, r.Router, "eth0", key)
	s.set(t, r.Router, key, "--category", "file-transfer")
	passed := func() (uint64, time.Time) {
		counters := s.rules(t, r.Router)[2].Counters
		return counters.Bytes - counters.DroppedBytes, time.Now()
	}
	time.Sleep(500 * time.Millisecond) // the burst
	before, from := passed()
	time.Sleep(1500 * time.Millisecond)
	after, to := passed()
	t.Logf("TCP through a policer of 20 Mbit/s: %.1f Mbit/s", float64(after-before)*8/to.Sub(from).Seconds()/1e6)
	sender.Stop()
}

// rules returns the rules in force and what they counted.
func (s *suite) rules(t *testing.T, h *lab.Host) (rules []countedRule) {
	t.Helper()
	for line := range strings.Lines(s.run(t, h, "policy", "show", "eth0", "-o", "json").want(t, cli.ExitDone).out) {
		var rule countedRule
		if err := json.Unmarshal([]byte(line), &rule); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rules = append(rules, rule)
	}
	return rules
}
