// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"slices"
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

// testPolice polices UDP by class and by flow, both ways: what comes through is at most
// the rate and the burst.
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
			from := time.Now()
			// Until the bursts are a small part of what was passed.
			if err := lab.Until(ctx, "policed packets", func() (bool, error) {
				rules := s.rules(t, r.Router)
				passed := func(i int) uint64 { return rules[i].Counters.Bytes - rules[i].Counters.DroppedBytes }
				return passed(0) > 2*5*policeBurst && passed(1) > 3*5*policeBurst, nil
			}); err != nil {
				t.Error(err)
			}
			for _, p := range programs {
				p.Signal(unix.SIGKILL)
			}
			// What was on its way through the router at that time is left out: it may have
			// been policed before.
			counted := from.Add(policeTransit)
			server, client := count(t, stopServer(), counted), count(t, stopClient(), counted)
			flows := s.flows(t, r.Router, "eth0")
			for _, check := range []struct {
				what           string
				sent, received map[flow.Key]*tally
				ports          []int
				rate           float64 // Mbit/s
			}{
				{"class, in, two flows", client, server, []int{5201, 5202}, 4},
				{"class, out", server, client, []int{5203}, 4},
				{"flow, in, IPv4", client, server, []int{5204}, 2},
				{"flow, in, IPv6", client, server, []int{5205}, 2},
				{"flow, out", server, client, []int{5206}, 2},
			} {
				var keys []flow.Key
				for _, load := range loads {
					if slices.Contains(check.ports, load.port) {
						keys = append(keys, load.key(t, r))
					}
				}
				sent, _ := total(check.sent, keys)
				got, last := total(check.received, keys)
				// A packet is received after it was policed, so all of these were policed in this time.
				elapsed := last.Sub(from)
				rate := check.rate * 1e6 / 8
				rated := rate * elapsed.Seconds()
				t.Logf("%s: %d bytes of %d in %v, at the rate %.0f", check.what, got, sent, elapsed, rated)
				// A bucket never passes more: the kernel's clock of long bursts is a tick coarse.
				if most := rated + policeBurst + rate*policeTick.Seconds() + policePacket; float64(got) > most {
					t.Errorf("%s: %d bytes came through, at most %.0f may", check.what, got, most)
				}
				// How near it comes to the rate depends on the machine.
				if least := min(rated, float64(sent)) / 10; float64(got) < least {
					t.Errorf("%s: %d bytes came through, want %.0f at the very least", check.what, got, least)
				}
			}
			// The flows and the rules have the same number of dropped packets.
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
		})
	}
}

const (
	policeBurst   = 128 << 10              // default burst of the rates here, in bytes
	policePacket  = 1100                   // more than a packet of the load, in bytes
	policeTick    = 10 * time.Millisecond  // the longest jiffy
	policeTransit = 100 * time.Millisecond // far more than the router takes for a packet
)

// total returns the bytes of some flows in a capture, and the time of the last packet.
func total(counts map[flow.Key]*tally, keys []flow.Key) (bytes uint64, last time.Time) {
	for _, key := range keys {
		c := counts[key]
		if c == nil {
			continue
		}
		bytes += c.bytes
		if c.last.After(last) {
			last = c.last
		}
	}
	return bytes, last
}

// rules returns the rules in force on eth0 and what they counted.
func (s *suite) rules(t *testing.T, h *lab.Host) []countedRule {
	t.Helper()
	return s.rulesOf(t, h, "eth0")
}

func (s *suite) rulesOf(t *testing.T, h *lab.Host, iface string) (rules []countedRule) {
	t.Helper()
	for line := range strings.Lines(s.run(t, h, "policy", "show", iface, "-o", "json").want(t, cli.ExitDone).out) {
		var rule countedRule
		if err := json.Unmarshal([]byte(line), &rule); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rules = append(rules, rule)
	}
	return rules
}
