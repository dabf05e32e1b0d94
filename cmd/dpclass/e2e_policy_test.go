// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

const policyRules = `version: 1
rules:
  - match: {category: voip}
    action: {dscp: EF}
  - match: {app: torrent}
    action: {drop: true}
protect: [udp/7777, 10.0.1.77/32]
`

// testPolicy follows packets over a router through every action.
func testPolicy(t *testing.T, s *suite) {
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			r := routed(t, lab.Topology{})
			old := newTalkTCP(t, r) // begins before anything is attached
			s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify")
			t.Run("Mark", func(t *testing.T) { testMark(t, s, r) })
			t.Run("Drop", func(t *testing.T) { testDrop(t, s, r) })
			t.Run("DropAll", func(t *testing.T) { testDropAll(t, s, r) })
			t.Run("Protect", func(t *testing.T) { testProtect(t, s, r) })
			t.Run("Midstream", func(t *testing.T) { testMidstream(t, s, r, old) })
			t.Run("DNS", func(t *testing.T) { testDNSRules(t, s, r) })
			t.Run("BadFile", func(t *testing.T) { testBadPolicy(t, s, r) })
		})
	}
}

// testMark reads the DSCP of both directions from the wire; the ECN bits stay.
func testMark(t *testing.T, s *suite, r *lab.Routed) {
	const ect0, ef = 2, 46 << 2
	talks := []*talk{newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6000), newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 6001)}
	read := func(tos byte) {
		t.Helper()
		stopServer, stopClient := start(t, r.Server, "eth0", "udp"), start(t, r.Client, "eth0", "udp")
		for _, k := range talks {
			if got := k.ask(t, 20); got != 20 {
				t.Errorf("flow %q: %d answers of 20", k.key, got)
			}
		}
		server, client := count(t, stopServer(), time.Time{}), count(t, stopClient(), time.Time{})
		for _, k := range talks {
			// Each end's capture has what it sent, too, as it was sent.
			for _, c := range []*tally{server[k.key], client[k.key]} {
				want := map[byte]int{tos: 20, ect0: 20}
				if tos == ect0 {
					want = map[byte]int{ect0: 40}
				}
				if c == nil || fmt.Sprint(c.tos) != fmt.Sprint(want) || c.badSums != 0 {
					t.Errorf("flow %q: %+v on the wire, want %v", k.key, c, want)
				}
			}
		}
	}
	s.apply(t, r.Router, policyRules)
	read(ect0)
	for _, k := range talks {
		s.set(t, r.Router, k.key, "--category", "voip")
	}
	read(ef | ect0)
	if rules := s.rules(t, r.Router); len(rules) != 2 || rules[0].Counters.Marked != 80 || rules[1].Counters.Packets != 0 {
		t.Errorf("rules %+v, want 80 packets marked by the first", rules)
	}
	s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
	read(ect0)

	// Super-packets too: every segment has the mark.
	bulk := newTalkTCP(t, r)
	bulk.ask(t)
	s.set(t, r.Router, bulk.key, "--category", "voip")
	s.apply(t, r.Router, policyRules)
	stopServer, stopClient := start(t, r.Server, "eth0", "tcp"), start(t, r.Client, "eth0", "tcp")
	bulk.send(t, 1<<20)
	for where, file := range map[string]string{"server": stopServer(), "client": stopClient()} {
		c := count(t, file, time.Time{})[bulk.key]
		if c == nil || c.tos[ef] == 0 || c.tos[0] == 0 || len(c.tos) != 2 || c.badSums != 0 {
			t.Errorf("bulk at the %s: %+v", where, c)
		}
	}
	record := s.flows(t, r.Router, "eth0")[bulk.key]
	if rule := s.rules(t, r.Router)[0]; rule.Counters.Marked < record.Packets-10 || record.Packets < 1<<20/1448*2 {
		t.Errorf("%d packets, %d marked", record.Packets, rule.Counters.Marked)
	}
	s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
}

// testDrop has nothing come through, either way, until the policy is cleared.
func testDrop(t *testing.T, s *suite, r *lab.Routed) {
	talks := []*talk{newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6002), newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 6003)}
	other := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6004)
	for _, k := range append(talks, other) {
		if got := k.ask(t, 5); got != 5 {
			t.Fatalf("flow %q: %d answers of 5", k.key, got)
		}
	}
	for _, k := range talks {
		s.set(t, r.Router, k.key, "--app", "torrent")
	}
	s.apply(t, r.Router, policyRules)
	stopServer, stopClient := start(t, r.Server, "eth0", "udp"), start(t, r.Client, "eth0", "udp")
	for _, k := range talks {
		k.push(t, 20) // from the server
		if got := k.ask(t, 20); got != 0 {
			t.Errorf("flow %q: %d answers through a drop rule", k.key, got)
		}
	}
	if got := other.ask(t, 20); got != 20 {
		t.Errorf("flow %q, which no rule matches: %d answers of 20", other.key, got)
	}
	server, client := count(t, stopServer(), time.Time{}), count(t, stopClient(), time.Time{})
	flows := s.flows(t, r.Router, "eth0")
	for _, k := range talks {
		// 20 that the end sent itself, none of the other's.
		if s, c := server[k.key], client[k.key]; s == nil || c == nil || s.packets != 20 || c.packets != 20 {
			t.Errorf("flow %q: at the server %+v, at the client %+v, want 20 packets each, their own", k.key, s, c)
		}
		if record := flows[k.key]; record.Dropped != 40 || record.PacketsIn != 25 || record.PacketsOut != 25 || record.Rule != 2 {
			t.Errorf("flow %q: %+v, want 40 packets dropped", k.key, record.Live)
		}
	}
	if server[other.key] == nil || server[other.key].packets != 40 {
		t.Errorf("flow %q: %+v at the server", other.key, server[other.key])
	}
	s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone, "no policy")
	for _, k := range talks {
		if got := k.ask(t, 20); got != 20 {
			t.Errorf("flow %q: %d answers of 20 without a policy", k.key, got)
		}
	}
}

// testDropAll has ICMP and neighbour discovery pass a policy that drops all it may.
func testDropAll(t *testing.T, s *suite, r *lab.Routed) {
	ctx := testContext(t)
	s.apply(t, r.Router, "version: 1\nrules:\n  - match: {final: false}\n    action: {drop: true}\n")
	k := newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 6007)
	if got := k.ask(t, 5); got != 5 { // there is no verdict to act on
		t.Errorf("%d answers of 5 of an undecided flow", got)
	}
	s.set(t, r.Router, k.key, "--category", "unknown")
	if got := k.ask(t, 5); got != 0 {
		t.Errorf("%d answers of 5 of a flow that is decided to be unknown", got)
	}
	if _, err := r.Client.Run(ctx, "ip", "neigh", "flush", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		if err := ping(r.Client, addr); err != nil {
			t.Errorf("ping of %s: %v", addr, err)
		}
	}
	s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
}

// ping has an ICMP echo request answered.
func ping(h *lab.Host, addr string) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if netip.MustParseAddr(addr).Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129 // the kernel writes its checksum
	}
	return h.Do(func() error {
		conn, err := net.Dial(network, addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		const identity = "\x12\x34\x00\x01"
		message := append([]byte{request, 0, 0, 0}, identity...)
		binary.BigEndian.PutUint16(message[2:], ^checksum(message))
		if _, err := conn.Write(message); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		packet := make([]byte, 1500)
		for {
			n, err := conn.Read(packet)
			if err != nil {
				return err
			}
			message := packet[:n]
			if request == 8 { // raw sockets of IPv4 hand out the IP header
				message = message[min(n, int(packet[0]&15)*4):]
			}
			if len(message) >= 8 && message[0] == reply && string(message[4:8]) == identity {
				return nil
			}
		}
	})
}

// testDNSRules: rules by protocol, port and host act on port 53, though it is never sampled.
func testDNSRules(t *testing.T, s *suite, r *lab.Routed) {
	talks := []*talk{newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 53), newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 53)}
	other := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6010)
	for _, match := range []string{"protocol: dns", "port: 53", "protocol: dns, host: [" + r.ServerAddr4 + ", \"" + r.ServerAddr6 + "\"]"} {
		s.apply(t, r.Router, "version: 1\nrules: [{match: {"+match+"}, action: {drop: true}}]\n")
		for _, k := range talks {
			if got := k.ask(t, 5); got != 0 {
				t.Errorf("%s: flow %q: %d answers through a drop rule", match, k.key, got)
			}
		}
		if got := other.ask(t, 5); got != 5 {
			t.Errorf("%s: flow %q, which no rule matches: %d answers of 5", match, other.key, got)
		}
		s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
	}
	flows := s.flows(t, r.Router, "eth0")
	for _, k := range talks {
		if got := k.ask(t, 5); got != 5 {
			t.Errorf("flow %q: %d answers of 5 without a policy", k.key, got)
		}
		if record := flows[k.key]; record.Protocol != "dns" || record.Dropped != 15 || record.Samples != 0 {
			t.Errorf("flow %q: %+v %+v, want protocol dns and 15 packets dropped", k.key, record, record.Live)
		}
	}
}

// testProtect has a protected port and address pass a drop rule.
func testProtect(t *testing.T, s *suite, r *lab.Routed) {
	if _, err := r.Client.Run(testContext(t), "ip", "addr", "add", "10.0.1.77/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	talks := []*talk{
		newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 7777), newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 7777),
		newTalk(t, r, "10.0.1.77", r.ServerAddr4, 6005),
	}
	dropped := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6006)
	s.apply(t, r.Router, policyRules)
	for _, k := range append(talks, dropped) {
		k.ask(t, 1)
		s.set(t, r.Router, k.key, "--app", "torrent")
	}
	for _, k := range talks {
		if got := k.ask(t, 20); got != 20 {
			t.Errorf("flow %q is protected: %d answers of 20", k.key, got)
		}
		if record := s.flows(t, r.Router, "eth0")[k.key]; record.Dropped != 0 || record.Rule != 2 {
			t.Errorf("flow %q: %+v", k.key, record.Live)
		}
	}
	if got := dropped.ask(t, 5); got != 0 {
		t.Errorf("flow %q is not protected: %d answers", dropped.key, got)
	}
}

// testMidstream has a connection that began before dpclass was attached pass a
// drop rule, unless the rule says otherwise.
func testMidstream(t *testing.T, s *suite, r *lab.Routed, old *talkTCP) {
	s.apply(t, r.Router, policyRules)
	if !old.ask(t) {
		t.Fatal("no answer without a verdict")
	}
	s.set(t, r.Router, old.key, "--app", "torrent")
	record := s.waitFlow(t, r.Router, "eth0", old.key)
	if !record.Midstream || record.App != "torrent" {
		t.Errorf("flow %q: %+v", old.key, record)
	}
	if !old.ask(t) {
		t.Error("a drop rule acts on a connection whose beginning was not seen")
	}
	begun := newTalkTCP(t, r)
	begun.ask(t)
	s.set(t, r.Router, begun.key, "--app", "torrent")
	if begun.ask(t) {
		t.Error("a drop rule does not act on a connection whose beginning was seen")
	}
	s.apply(t, r.Router, "version: 1\nrules:\n  - match: {app: torrent, midstream: true}\n    action: {drop: true}\n")
	if old.ask(t) {
		t.Error("midstream: true does not act on a connection whose beginning was not seen")
	}
}

// testBadPolicy has a policy file with an error change nothing.
func testBadPolicy(t *testing.T, s *suite, r *lab.Routed) {
	s.apply(t, r.Router, policyRules)
	inForce := func() string { // the file, and when it was applied
		out := s.run(t, r.Router, "policy", "show", "eth0").want(t, cli.ExitDone, "applied ").out
		return out[:strings.Index(out, "MATCH")] + out[strings.Index(out, "applied "):]
	}
	before := inForce()
	for name, text := range map[string]string{
		"unknown category":  "version: 1\nrules:\n  - match: {category: voipp}\n    action: {drop: true}\n",
		"unknown unit":      "version: 1\nrules:\n  - match: {category: voip}\n    action: {rate: 20mbot}\n",
		"unknown field":     "version: 1\nrules:\n  - match: {category: voip}\n    action: {dorp: true}\n",
		"no version":        "rules: []\n",
		"duplicate rule":    "version: 1\nrules:\n  - match: {category: voip}\n    action: {drop: true}\n  - match: {category: voip}\n    action: {drop: true}\n",
		"unreachable rule":  "version: 1\nrules:\n  - match: {}\n    action: {pass: true}\n  - match: {category: voip}\n    action: {drop: true}\n",
		"no YAML":           "version: 1\nrules: [\n",
		"empty":             "",
		"not text":          "\x00\x01\x02\xff",
		"the second is bad": "version: 1\nrules:\n  - match: {category: voip}\n    action: {drop: true}\n  - match: {app: nosuch}\n    action: {drop: true}\n",
	} {
		file := save(t, "bad.yaml", text)
		s.run(t, r.Router, "policy", "check", file).want(t, cli.ExitFailed, "bad.yaml")
		got := s.run(t, r.Router, "policy", "apply", "eth0", file)
		if got.code != cli.ExitFailed {
			t.Errorf("%s: exit %d: %s", name, got.code, got.out+got.err)
			continue
		}
		checkError(t, got.err)
	}
	s.run(t, r.Router, "policy", "apply", "eth0", "/nonexistent.yaml").want(t, cli.ExitFailed, "/nonexistent.yaml", "no such file")
	s.run(t, r.Router, "policy", "apply", "eth1", save(t, "good.yaml", policyRules)).want(t, cli.ExitFailed, "eth1", "not attached")
	if after := inForce(); after != before {
		t.Errorf("the policy in force has changed: %s", after)
	}
}

// testApplies has ten processes apply policies at once, fifty times, and one of them killed
// on its way: rules, what is protected and the text are always of one policy, also as
// "policy show" reads them meanwhile.
func testApplies(t *testing.T, s *suite) {
	const writers, rounds = 10, 50
	near, _ := pair(t, false)
	s.attach(t, near, "eth0", "--no-classify")
	var files []string
	for n := range writers {
		text := fmt.Sprintf("version: 1\nprotect: [10.%d.0.0/16, \"fd%02x::/16\", udp/%d]\nrules:\n", n, n, 1000+n)
		for rule := range n + 1 {
			text += fmt.Sprintf("  - match: {host: 192.0.2.%d}\n    action: {dscp: %d}\n", rule, n)
		}
		files = append(files, save(t, fmt.Sprintf("policy%d.yaml", n), text))
	}
	// whole returns what is wrong with what is in force.
	whole := func() error {
		return near.Do(func() error {
			iface, err := loader.Open("eth0")
			if err != nil {
				return err
			}
			defer iface.Close()
			p, stats, err := iface.Rules().Policy()
			if err != nil {
				return err
			}
			want, _, err := policy.Parse("policy in force", p.Source, nil)
			if err != nil {
				return err
			}
			slices.SortFunc(p.Prefixes, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
			if len(stats) != len(want.Rules) || !slices.Equal(p.Prefixes, want.Prefixes) || !slices.Equal(p.Ports, want.Ports) {
				return fmt.Errorf("%d rules, protected %v %v with the text\n%s", len(stats), p.Prefixes, p.Ports, p.Source)
			}
			return nil
		})
	}
	s.run(t, near, "policy", "apply", "eth0", files[0]).want(t, cli.ExitDone)
	for round := range rounds {
		var applies []*lab.Process
		for n := range files {
			cmd, err := near.Command(testContext(t), s.binary, "policy", "apply", "eth0", files[(n+round)%writers])
			if err != nil {
				t.Fatal(err)
			}
			p, err := near.StartCommand(cmd)
			if err != nil {
				t.Fatal(err)
			}
			applies = append(applies, p)
		}
		killed := applies[round%writers]
		shown := s.run(t, near, "policy", "show", "eth0", "-o", "json").want(t, cli.ExitDone).out
		for line := range strings.Lines(shown) {
			if !strings.Contains(line, `"counters"`) {
				t.Errorf("a rule that the kernel does not have: %s", line)
			}
		}
		killed.Signal(syscall.SIGKILL) // it may have ended
		for _, p := range applies {
			if err := p.Wait(); err != nil && p != killed {
				t.Fatalf("%v: %s", err, p.Output())
			}
		}
		if err := whole(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// sshMain runs with the words of $SSH_CONNECTION after the way to apply the policy. The
// policy would drop the connection that the script itself runs over.
const sshMain = `set -e
way=$1; client=$2:$3; server=$4:$5
case $4 in *:*) client=[$2]:$3 server=[$4]:$5;; esac
case $way in
plain) sh APPLY;;
sudo) env -i PATH=$PATH sh APPLY;;
orphan) sh -c 'env -i PATH=$PATH sh ORPHAN $$ &';;
tmux) sh -c 'setsid env -i PATH=$PATH "DIR/tmux: server" ORPHAN $$ &';;
esac
until [ -e DONE ]; do sleep .05; done
cat OUT
DPCLASS flows set eth0 "tcp $client $server" --app torrent
seq 20000
DPCLASS flows eth0 -o json --filter port:22
`

// testSSH applies a policy over SSH that would drop that very connection: with
// $SSH_CONNECTION, with sudo's environment, where no parent has it either, from a process
// whose parents have ended and that has only the terminal, and from the child of a process
// that outlives connections, as those of tmux are.
func testSSH(t *testing.T, s *suite) {
	ctx := testContext(t)
	r := routed(t, lab.Topology{})
	ssh, err := r.Router.SSHD(ctx, 22, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.attach(t, r.Router, "eth0", "--no-classify")
	const drop = "version: 1\nrules:\n  - match: {app: torrent}\n    action: {drop: true}\n"
	rules := save(t, "drop.yaml", drop)
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	const bare = "exec env -i PATH=$PATH "
	for name, test := range map[string]struct {
		addr, shell, way string
		options          []string
	}{
		"environment": {addr: "10.0.1.1", shell: "sh", way: "plain"},
		"sudo":        {addr: "10.0.1.1", shell: "sh", way: "sudo"},
		"socket":      {addr: "10.0.1.1", shell: bare + "sh", way: "sudo"},
		"socket6":     {addr: "fd00:1::1", shell: bare + "sh", way: "sudo"},
		"terminal":    {addr: "10.0.1.1", shell: bare + "sh", way: "orphan", options: []string{"-tt"}},
		"tmux":        {addr: "10.0.1.1", shell: bare + "'DIR/tmux: client'", way: "tmux"},
	} {
		t.Run(name, func(t *testing.T) {
			s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
			dir := t.TempDir()
			for _, name := range []string{"tmux: client", "tmux: server"} {
				if err := os.WriteFile(filepath.Join(dir, name), shell, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			names := []string{"DPCLASS", s.binary, "DIR", dir, "RULES", rules}
			for _, name := range []string{"APPLY", "ORPHAN", "OUT", "DONE", "MAIN"} {
				names = append(names, name, filepath.Join(dir, strings.ToLower(name)))
			}
			fill := strings.NewReplacer(names...)
			for name, text := range map[string]string{
				"apply":  "DPCLASS policy apply eth0 RULES >OUT 2>&1\ntouch DONE\n",
				"orphan": "while [ -d /proc/$1 ]; do sleep .05; done\nDPCLASS policy apply eth0 RULES >OUT 2>&1\ntouch DONE\n",
				"main":   sshMain,
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(fill.Replace(text)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := r.Client.SSH(ctx, ssh, test.addr, fill.Replace(test.shell+" MAIN "+test.way+" $SSH_CONNECTION"), test.options...)
			before, _, _ := strings.Cut(strings.ReplaceAll(out, "\r", ""), "\n1\n2\n")
			_, after, found := strings.Cut(strings.ReplaceAll(out, "\r", ""), "20000\n")
			if err != nil || !found {
				t.Fatalf("the session did not go on: %v: %s", err, before)
			}
			shown := s.run(t, r.Router, "policy", "show", "eth0").want(t, cli.ExitDone).out
			ours := 0
			for _, record := range readRecords(t, after) {
				if record.App != "torrent" || record.Ended != "" {
					continue
				}
				ours++
				if record.Dropped != 0 || record.Rule != 1 {
					t.Errorf("%+v %+v", record, record.Live)
				}
				says := fmt.Sprintf("the SSH connection %q", record.Key())
				if !strings.Contains(before, says) || !strings.Contains(shown, record.Key().String()) {
					t.Errorf("%q is missing in:\n%s%s", says, before, shown)
				}
			}
			if ours != 1 {
				t.Errorf("%d connections have the verdict: %s", ours, after)
			}
			s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
			s.run(t, r.Router, "policy", "apply", "eth0", rules).want(t, cli.ExitDone)
			// Another connection gets what the rule says.
			k := newTalkTCP(t, r)
			k.ask(t)
			s.set(t, r.Router, k.key, "--app", "torrent")
			if k.ask(t) {
				t.Error("the policy is not in force")
			}
		})
	}
	t.Run("not found", func(t *testing.T) {
		fake := filepath.Join(t.TempDir(), "sshd")
		if err := os.WriteFile(fake, shell, 0o700); err != nil {
			t.Fatal(err)
		}
		out, err := r.Router.Run(ctx, fake, "-c", "env -i "+s.binary+" policy apply eth0 "+rules+" 2>&1; :")
		if err != nil || !strings.Contains(out, "warning: this seems to be a remote session of sshd (process ") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// apply puts a policy in force.
func (s *suite) apply(t *testing.T, h *lab.Host, rules string) {
	t.Helper()
	s.run(t, h, "policy", "apply", "eth0", save(t, "policy.yaml", rules)).want(t, cli.ExitDone, "policy in force")
}

// set gives a flow an operator's verdict.
func (s *suite) set(t *testing.T, h *lab.Host, key flow.Key, verdict ...string) {
	t.Helper()
	s.run(t, h, append([]string{"flows", "set", "eth0", key.String()}, verdict...)...).want(t, cli.ExitDone, "(operator)")
}

// talk is a UDP flow between client and server: the server answers each packet.
// All packets are marked as capable of ECN.
type talk struct {
	key      flow.Key
	client   *net.UDPConn
	server   *net.UDPConn
	from     netip.AddrPort // of the client
	sequence uint64
}

func newTalk(t *testing.T, r *lab.Routed, client, server string, port int) *talk {
	t.Helper()
	ctx := testContext(t)
	local := netip.AddrPortFrom(netip.MustParseAddr(client), uint16(port+20000))
	remote := netip.AddrPortFrom(netip.MustParseAddr(server), uint16(port))
	answers, err := r.Server.ListenUDP(ctx, remote.String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := r.Client.Dial(ctx, "udp", local.String(), remote.String())
	if err != nil {
		t.Fatal(err)
	}
	k := &talk{client: conn.(*net.UDPConn), server: answers, from: local}
	k.key, _ = flow.MakeKey(flow.UDP, local, remote, 0)
	for _, socket := range []*net.UDPConn{k.client, k.server} {
		t.Cleanup(func() { socket.Close() })
		setTOS(t, socket, local.Addr().Is6(), 2)
	}
	go func() {
		packet := make([]byte, 1500)
		for {
			n, from, err := answers.ReadFromUDPAddrPort(packet)
			if err != nil {
				return
			}
			answers.WriteToUDPAddrPort(packet[:n], from)
		}
	}()
	return k
}

// setTOS sets the DSCP and the ECN bits of what a socket sends; 2 is ECT(0).
func setTOS(t *testing.T, conn *net.UDPConn, is6 bool, tos int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_TOS
	if is6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, tos) }); err != nil || failed != nil {
		t.Fatalf("type of service: %v %v", err, failed)
	}
}

// ask sends n packets and returns how many answers come.
func (k *talk) ask(t *testing.T, n int) int {
	t.Helper()
	first := k.sequence
	for range n {
		packet := binary.BigEndian.AppendUint64(make([]byte, 0, 100), k.sequence)
		if _, err := k.client.Write(packet[:100]); err != nil {
			t.Fatalf("flow %q: %v", k.key, err)
		}
		k.sequence++
	}
	answers := 0
	packet := make([]byte, 1500)
	for answers < n {
		if err := k.client.SetReadDeadline(time.Now().Add(silence)); err != nil {
			t.Fatal(err)
		}
		if _, err := k.client.Read(packet); err != nil {
			break
		}
		if binary.BigEndian.Uint64(packet) >= first {
			answers++
		}
	}
	return answers
}

// silence is how long nothing comes before nothing will.
const silence = 400 * time.Millisecond

// push makes the server send n packets without a request.
func (k *talk) push(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := k.server.WriteToUDPAddrPort(make([]byte, 100), k.from); err != nil {
			t.Fatal(err)
		}
	}
}

// talkTCP is a TCP connection from client to server; the server answers.
type talkTCP struct {
	key      flow.Key
	conn     net.Conn
	listener net.Listener
	asks     atomic.Uint64
}

func newTalkTCP(t *testing.T, r *lab.Routed) *talkTCP {
	t.Helper()
	ctx := testContext(t)
	listener, err := r.Server.Listen(ctx, r.ServerAddr4+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	conn, err := r.Client.Dial(ctx, "tcp", "", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	k := &talkTCP{conn: conn, listener: listener}
	local, remote := conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	k.key, _ = flow.MakeKey(flow.TCP, local, remote, 0)
	return k
}

// send sends n bytes and reads them back.
func (k *talkTCP) send(t *testing.T, n int64) {
	t.Helper()
	if err := k.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := k.conn.Write(make([]byte, n))
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, k.conn, n); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// again resets the connection and begins one between the same ends.
func (k *talkTCP) again(t *testing.T, r *lab.Routed) {
	t.Helper()
	local := k.conn.LocalAddr().String()
	if err := errors.Join(k.conn.(*net.TCPConn).SetLinger(0), k.conn.Close()); err != nil {
		t.Fatal(err)
	}
	conn, err := r.Client.Dial(testContext(t), "tcp", local, k.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	k.conn = conn
}

// ask sends a line and reports whether the answer comes.
func (k *talkTCP) ask(t *testing.T) bool {
	t.Helper()
	line := fmt.Sprintf("question %d\n", k.asks.Add(1))
	if _, err := k.conn.Write([]byte(line)); err != nil {
		t.Fatal(err)
	}
	if err := k.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 1500)
	n, err := k.conn.Read(packet)
	return err == nil && string(packet[:n]) == line
}
