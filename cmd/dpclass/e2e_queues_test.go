// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

const queueRules = `version: 1
rules:
  - match: {port: udp/7001}
    action: {classid: "1:20"}
  - match: {port: udp/7002}
    action: {mark: 0x30}
  - match: {port: udp/7003}
    action: {dscp: EF}
  - match: {port: udp/7004}
    action: {dscp: EF, keep_marked: true}
  - match: {port: udp/7001-7005}
    action: {classid: "1:50"}
`

// htb is a tree of HTB classes: by skb->priority (classid), by mark, by DSCP. The classic BPF program is
// "ld mark; jeq #0x30; ret".
var htb = []string{
	"qdisc add dev eth1 root handle 1: htb default 10",
	"class add dev eth1 parent 1: classid 1:1 htb rate 100mbit",
	"class add dev eth1 parent 1:1 classid 1:10 htb rate 10mbit",
	"class add dev eth1 parent 1:1 classid 1:20 htb rate 10mbit",
	"class add dev eth1 parent 1:1 classid 1:30 htb rate 10mbit",
	"class add dev eth1 parent 1:1 classid 1:40 htb rate 10mbit",
	"class add dev eth1 parent 1:1 classid 1:50 htb rate 10mbit",
	"filter add dev eth1 parent 1: prio 1 bpf bytecode 4,32~0~0~4294963220,21~0~1~48,6~0~0~4294967295,6~0~0~0 flowid 1:30",
	"filter add dev eth1 parent 1: prio 2 protocol ip u32 match ip tos 0xb8 0xfc flowid 1:40",
	"filter add dev eth1 parent 1: prio 3 protocol ipv6 u32 match u32 0x0b800000 0x0fc00000 at 0 flowid 1:40",
}

// testQueues: packets that the router sends come into the class of a real HTB tree that the policy says, over IPv4 and
// IPv6; the first rule wins. The same for CAKE's tins, where the kernel has it.
func testQueues(t *testing.T, s *suite) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			ctx := testContext(t)
			r := routed(t, lab.Topology{})
			for _, line := range htb {
				args := strings.Fields(line)
				for n := range args {
					args[n] = strings.ReplaceAll(args[n], "~", " ")
				}
				if _, err := r.Router.Run(ctx, "tc", args...); err != nil {
					t.Fatal(err)
				}
			}
			s.attach(t, r.Router, "eth1", "--no-classify", "--policy", save(t, "queues.yaml", queueRules))
			server, client := r.ServerAddr4, r.ClientAddr4
			if family == "IPv6" {
				server, client = r.ServerAddr6, r.ClientAddr6
			}
			const packets = 40
			talks := map[int]*talk{}
			for _, test := range []struct {
				port, tos int
				class     string
			}{
				{7001, 0, "1:20"}, {7002, 0, "1:30"}, {7003, 0x28, "1:40"}, {7004, 0, "1:40"}, {7004, 0x28, "1:10"}, {7005, 0, "1:50"}, {7006, 0, "1:10"},
			} {
				c := talks[test.port]
				if c == nil {
					c = newTalk(t, r, client, server, test.port)
					talks[test.port] = c
				}
				setTOS(t, c.client, family == "IPv6", test.tos)
				before := classes(t, r.Router)
				if got := c.ask(t, packets); got < packets/2 {
					t.Fatalf("port %d: %d of %d packets came back", test.port, got, packets)
				}
				for class, sent := range classes(t, r.Router) {
					sent -= before[class]
					if class == test.class && sent < packets/2 || class != test.class && class != "1:1" && sent >= packets/2 {
						t.Errorf("port %d, ToS %#x: class %s sent %d packets, all of %d belong to %s", test.port, test.tos, class, sent, packets, test.class)
					}
				}
			}
			rules := s.rulesOf(t, r.Router, "eth1")
			if rules[3].DSCP["46"] < packets || rules[3].DSCP["10"] < packets/2 || rules[2].DSCP["46"] == 0 {
				t.Errorf("packets by DSCP: %v and %v", rules[2].DSCP, rules[3].DSCP)
			}
			s.run(t, r.Router, "policy", "show", "eth1").want(t, cli.ExitDone, "class 1:20 when sent", "skb mark 0x30 when sent", "rule 4, packets by DSCP: 46 ")
		})
	}
	t.Run("CAKE", func(t *testing.T) {
		ctx := testContext(t)
		r := routed(t, lab.Topology{})
		if out, err := r.Router.Run(ctx, "tc", "qdisc", "add", "dev", "eth1", "root", "handle", "1:", "cake", "bandwidth", "100mbit", "diffserv4"); err != nil {
			t.Skipf("SKIPPED: this kernel has no sch_cake: %v: %s", err, out)
		}
		// Tins of diffserv4: 1 bulk, 2 best effort, 3 video, 4 voice.
		s.attach(t, r.Router, "eth1", "--no-classify", "--policy", save(t, "cake.yaml",
			"version: 1\nrules:\n  - {match: {port: udp/7001}, action: {classid: \"1:4\"}}\n  - {match: {port: udp/7002}, action: {dscp: EF}}\n"))
		for _, port := range []int{7001, 7002} {
			c := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, port)
			before := voicePackets(t, r.Router)
			if got := c.ask(t, 40); got < 20 {
				t.Fatalf("%d of 40 packets came back", got)
			}
			if got := voicePackets(t, r.Router) - before; got < 20 {
				t.Errorf("port %d: %d packets came into the tin for voice, want 40", port, got)
			}
		}
	})
}

var (
	classLine = regexp.MustCompile(`(?s)class htb (\S+) .*?Sent \d+ bytes (\d+) pkt`)
	pktsLine  = regexp.MustCompile(`(?m)^\s*pkts\s+(.*)$`)
)

// classes returns how many packets each class of HTB on eth1 has sent.
func classes(t *testing.T, h *lab.Host) map[string]int {
	t.Helper()
	out, err := h.Run(testContext(t), "tc", "-s", "class", "show", "dev", "eth1")
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{}
	for _, match := range classLine.FindAllStringSubmatch(out, -1) {
		sent[match[1]], _ = strconv.Atoi(match[2])
	}
	if len(sent) < 6 {
		t.Fatalf("classes: %v in %s", sent, out)
	}
	return sent
}

// voicePackets returns how many packets the last tin of CAKE on eth1 has had.
func voicePackets(t *testing.T, h *lab.Host) int {
	t.Helper()
	out, err := h.Run(testContext(t), "tc", "-s", "qdisc", "show", "dev", "eth1")
	match := pktsLine.FindStringSubmatch(out)
	if err != nil || match == nil {
		t.Fatalf("%v: %s", err, out)
	}
	fields := strings.Fields(match[1])
	packets, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		t.Fatal(fmt.Errorf("%w: %s", err, out))
	}
	return packets
}
