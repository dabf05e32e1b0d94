// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

func withPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}

// has reports whether a field of a rule matches: it is not set, or one of its values fits.
func has[T any](values []T, fits func(T) bool) bool {
	return values == nil || slices.ContainsFunc(values, fits)
}

// matches says in plain Go whether a rule acts on packets of a direction of a flow.
func matchesFlow(r *flow.Rule, r2 *flow.Record, v *flow.Verdicts, both bool, direction flow.Direction) bool {
	ends := []netip.AddrPort{netip.AddrPortFrom(r2.Src, r2.SrcPort), netip.AddrPortFrom(r2.Dst, r2.DstPort)}
	proto, _ := flow.ParseProto(r2.Proto)
	protocol, _ := flow.ParseProtocol(r2.Protocol)
	if !has(r.Protocols, func(p flow.Protocol) bool { return p == protocol }) ||
		!has(r.Names, func(suffix string) bool {
			return r2.Name != flow.HiddenName && strings.HasSuffix("."+r2.Name, "."+suffix)
		}) ||
		!has(r.Hosts, func(h netip.Prefix) bool { return h.Contains(ends[0].Addr()) || h.Contains(ends[1].Addr()) }) ||
		!has(r.Ports, func(p flow.PortRange) bool {
			return (p.Proto == 0 || p.Proto == proto) && slices.ContainsFunc(ends, func(e netip.AddrPort) bool { return p.First <= e.Port() && e.Port() <= p.Last })
		}) ||
		!has(r.Directions, func(d flow.Direction) bool { return d == direction }) {
		return false
	}
	if r.Action.Drop && (r2.Midstream && !r.Midstream || proto == flow.TCP && !both && !r.OneSided) {
		return false
	}
	rests := func(task flow.Task) bool {
		v := v[task]
		return v.Source != flow.SourceNone && v.Confidence >= r.MinConfidence && (v.Final || v.Source == flow.SourceOperator || r.Provisional)
	}
	is := func(task flow.Task, labels []string) bool {
		return labels == nil || rests(task) && slices.Contains(labels, v[task].Label)
	}
	if !is(flow.Category, r.Categories) || !is(flow.App, r.Apps) {
		return false
	}
	if r.Sources != nil {
		task := flow.Category
		if r.Categories == nil && r.Apps != nil {
			task = flow.App
		}
		return rests(task) && slices.Contains(r.Sources, v[task].Source)
	}
	return !r.NeedsVerdict() || r.Categories != nil || r.Apps != nil || rests(flow.Category) || rests(flow.App)
}

// some returns nil, or some of the values.
func some[T any](random *rand.Rand, odds int, values ...T) []T {
	if random.IntN(odds) > 0 {
		return nil
	}
	random.Shuffle(len(values), func(a, b int) { values[a], values[b] = values[b], values[a] })
	return values[:1+random.IntN(min(len(values), 2))]
}

// TestRulesAsInGo: for random policies and flows, in every combination of fields, the kernel finds the rules that a
// plain function over flow.Rule finds.
func TestRulesAsInGo(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1, MaxFlows: 4096, MaxPending: 4096}, ethernet)
	const seed = 17
	random := rand.New(rand.NewPCG(seed, seed))
	names := []string{"com", "example.com", "www.example.com", "badexample.com", "example.org", "a.example.org", strings.Repeat("a.", 124) + "name", flow.HiddenName}
	var prefixes []netip.Prefix
	for _, p := range []string{"0.0.0.0/0", "198.51.0.0/16", "198.51.0.9/32", "203.0.113.0/24", "203.0.113.9/32", "198.51.1.0/24",
		"::/0", "2001:db8::/32", "2001:db8::9/128", "2001:db8::1/128", "2001:db8::8/125", "fe00::/7"} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	labels, apps := []string{"voip", "web", flow.Unknown}, []string{"tor", "netflix"}
	sources := []flow.Source{flow.SourceModel, flow.SourceOperator, flow.SourceName, flow.SourceProtocol}
	protocols := []flow.Protocol{flow.ProtocolTLS, flow.ProtocolSSH, flow.ProtocolBitcoin}
	type seen struct {
		conn     conn
		verdicts flow.Verdicts
		both     bool // ends have sent packets
	}
	var flows []seen
	for n := range 120 {
		c := []conn{tcp(n), udp(n), tcp6(n), {packettest.UDP, tcp6(n).server, tcp6(n).client}}[n%4]
		flags := uint8(syn)
		if n%7 == 0 {
			flags = ack // midstream
		}
		k.pass(progXDP, c.sent(flags, 0))
		s := seen{conn: c, both: n%5 > 0}
		if s.both {
			k.pass(progOut, c.answer(flags|ack, 0))
			k.pass(progXDP, c.sent(ack, 0))
		}
		for task, list := range [][]string{labels, apps} {
			if random.IntN(3) > 0 {
				s.verdicts[task] = flow.Verdict{
					Label: list[random.IntN(len(list))], Source: sources[random.IntN(len(sources))], Final: random.IntN(2) == 0,
					Confidence: decodeConfidence(encodeConfidence(float64(random.IntN(11)) / 10)),
				}
			}
		}
		var e flow.Evidence
		if random.IntN(4) > 0 {
			e.Name, e.NameSource = names[random.IntN(len(names))], flow.NameTLS
		}
		if random.IntN(4) > 0 {
			e.Protocol = protocols[random.IntN(len(protocols))]
		}
		if _, err := k.table.Apply([]flow.Decision{{ID: k.id(c.key()), Verdicts: s.verdicts, Evidence: e}}); err != nil {
			t.Fatal(err)
		}
		flows = append(flows, s)
	}
	acted := map[int]int{}
	for round := range 200 {
		rules := make([]flow.Rule, 1+random.IntN(12))
		if round%50 == 0 {
			rules = make([]flow.Rule, flow.MaxRules)
		}
		for n := range rules {
			odds := 2 + random.IntN(8) // of each field
			rules[n] = flow.Rule{
				Categories: some(random, odds, labels...), Apps: some(random, odds, apps...), Sources: some(random, odds, sources...),
				Protocols: some(random, odds, protocols...), Names: some(random, odds, names[:7]...), Hosts: some(random, odds, prefixes...),
				Ports: some(random, odds, flow.PortRange{First: 443, Last: 443}, flow.PortRange{Proto: flow.UDP, First: 1000, Last: 1063},
					flow.PortRange{Proto: flow.TCP, First: 1030, Last: 1101}, flow.PortRange{First: 0, Last: 65535}, flow.PortRange{First: 1, Last: 1050}),
				Directions: some(random, odds, flow.In, flow.Out), Provisional: random.IntN(3) == 0, Midstream: random.IntN(2) == 0, OneSided: random.IntN(2) == 0,
				Action: []flow.Action{passing, dropping}[random.IntN(2)],
			}
			if random.IntN(odds) == 0 {
				rules[n].MinConfidence = float64(random.IntN(10)) / 10
			}
		}
		k.policy(rules...)
		for _, s := range flows {
			k.run(progXDP, s.conn.sent(ack, 0))
			r := k.flow(s.conn.key())
			for direction, got := range map[flow.Direction]int{flow.In: r.Rule, flow.Out: r.RuleOut} {
				want := 1 + slices.IndexFunc(rules, func(rule flow.Rule) bool { return matchesFlow(&rule, &r, &s.verdicts, s.both, direction) })
				if got != want {
					t.Fatalf("seed %d, round %d: flow %+v %+v, direction %v: rule %d, want %d of\n%s",
						seed, round, r, r.Live, direction, got, want, list(rules))
				}
				acted[got]++
			}
		}
	}
	if acted[0] < 1000 || acted[1] < 1000 || acted[2] < 1000 || acted[9] == 0 {
		t.Errorf("the rules that acted are too alike: %v", acted)
	}
}

func list(rules []flow.Rule) string {
	var b strings.Builder
	for n := range rules {
		fmt.Fprintf(&b, "%d: %+v\n", n+1, rules[n])
	}
	return b.String()
}

// TestUndecidedFlows: a rule on a name or a port acts before there is a verdict, also when the name comes later; one
// that asks for a verdict does not.
func TestUndecidedFlows(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	k.policy(
		flow.Rule{Names: []string{"example.com"}, Action: dropping},
		flow.Rule{Ports: []flow.PortRange{{First: 443, Last: 443}}, MinConfidence: .1, Action: passing},
		flow.Rule{Hosts: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")}, Directions: []flow.Direction{flow.Out}, Action: passing},
	)
	c := tcp(1)
	k.opened(c)
	if r := k.flow(c.key()); r.Rule != 0 || r.RuleOut != 3 {
		t.Errorf("rules %d and %d, want 0 and 3", r.Rule, r.RuleOut)
	}
	k.says(c.key(), hello("www.example.com"))
	for _, program := range programs {
		if verdict, _ := k.run(program, c.sent(ack, 10)); verdict != dropped(program) {
			t.Errorf("%s returned %d", program, int32(verdict))
		}
	}
	k.says(c.key(), hello("www.example.com"))
	if f, _ := k.entry(c.key()); f.Choice.Change&bpfChoiceBitChoiceFound == 0 {
		t.Error("evidence that is not new makes the kernel look up the rules again")
	}
}

// TestDirection: each direction has its own rule, and hits are counted for the rule that acted.
func TestDirection(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: -1}, ethernet)
	k.policy(
		flow.Rule{Directions: []flow.Direction{flow.Out}, Categories: []string{"voip"}, Action: dropping},
		flow.Rule{Directions: []flow.Direction{flow.In}, Categories: []string{"voip"}, Action: marking(46)},
	)
	for _, c := range []conn{udp(1), {packettest.UDP, tcp6(1).client, tcp6(1).server}} {
		k.begun(c, "voip", 1, true)
		k.pass(progXDP, c.sent(0, 10), c.sent(0, 10))
		k.pass(progIn, c.sent(0, 10))
		if verdict, _ := k.run(progOut, c.answer(0, 10)); verdict != tcShot {
			t.Errorf("a sent packet: %d", int32(verdict))
		}
		if r := k.flow(c.key()); r.Rule != 2 || r.RuleOut != 1 || r.Dropped != 1 {
			t.Errorf("%+v", r.Live)
		}
	}
	_, stats, err := k.rules.Policy()
	if err != nil || len(stats) != 2 || stats[0].Packets != 2 || stats[0].Dropped != 2 || stats[1].Packets != 6 || stats[1].Marked != 6 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// TestPortPrefixes: the prefixes of ranges are the ports of the ranges, each once.
func TestPortPrefixes(t *testing.T) {
	t.Parallel()
	ranges := []flow.PortRange{{First: 0, Last: 0}, {First: 1, Last: 65534}, {Proto: flow.UDP, First: 5000, Last: 5063}, {First: 65535, Last: 65535}}
	rules := make([]flow.Rule, len(ranges))
	for n := range ranges {
		rules[n].Ports = ranges[n : n+1]
	}
	m, err := compileMatches(rules)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.ports) > 2*32+40 {
		t.Errorf("%d prefixes", len(m.ports))
	}
	for _, proto := range []flow.Proto{flow.TCP, flow.UDP} {
		got := make([]ruleSet, 1<<16)
		for p, set := range m.ports {
			if p.proto != proto {
				continue
			}
			for port := range 1 << (16 - p.bits) {
				if got[int(p.first)+port] != 0 {
					t.Fatalf("port %d has two prefixes", int(p.first)+port)
				}
				got[int(p.first)+port] = set
			}
		}
		for port := range got {
			var want ruleSet
			for n, r := range ranges {
				if (r.Proto == 0 || r.Proto == proto) && int(r.First) <= port && port <= int(r.Last) {
					want |= 1 << n
				}
			}
			if got[port] != want {
				t.Fatalf("%v port %d: rules %b, want %b", proto, port, got[port], want)
			}
		}
	}
}

// TestPolicyIsReplaced: nothing of a policy is left two policies later, and a refused one changes nothing.
func TestPolicyIsReplaced(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := tcp(1)
	k.pass(progXDP, c.sent(syn, 0))
	k.says(c.key(), hello("www.example.com"))
	rule := func() int {
		k.pass(progXDP, c.sent(ack, 0))
		return k.flow(c.key()).Rule
	}
	var hosts []netip.Prefix
	var names []string
	for n := range flow.MaxMatches {
		hosts = append(hosts, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 0}), 24))
		names = append(names, fmt.Sprintf("n%d.example", n))
	}
	for range 3 { // both banks, and one of them again
		k.policy(flow.Rule{Names: names, Action: passing}, flow.Rule{Hosts: hosts, Action: passing})
		if n := rule(); n != 0 {
			t.Errorf("rule %d acts", n)
		}
	}
	for name, match := range map[string]flow.Rule{
		"name": {Names: []string{"example.com"}}, "host": {Hosts: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}},
		"port": {Ports: []flow.PortRange{{First: 400, Last: 500}}},
	} {
		match.Action = passing
		k.policy(match)
		if n := rule(); n != 1 {
			t.Errorf("%s: rule %d", name, n)
		}
		for what, refused := range map[string]flow.Rule{
			"an empty name": {Names: []string{""}}, "a long name": {Names: []string{strings.Repeat("x", 254)}},
			"no prefix": {Hosts: []netip.Prefix{{}}}, "ports": {Ports: []flow.PortRange{{First: 2, Last: 1}}},
			"too many names": {Names: append(names, "one.more")}, "too many hosts": {Hosts: append(hosts, netip.MustParsePrefix("::/0"))},
		} {
			if err := k.rules.Set(&flow.Policy{Rules: []flow.Rule{{Action: passing}, refused}}); err == nil {
				t.Errorf("%s: no error", what)
			}
			if n := rule(); n != 1 {
				t.Errorf("%s: rule %d after a policy that was refused: %s", name, n, what)
			}
		}
		for range 2 {
			if err := k.rules.Clear(); err != nil {
				t.Fatal(err)
			}
			if n := rule(); n != 0 {
				t.Errorf("%s: rule %d without a policy", name, n)
			}
		}
	}
	var key bpfPortKey
	var set ruleSet
	if k.maps.Ports.Iterate().Next(&key, &set) {
		t.Errorf("ports are left: %+v", key)
	}
}
