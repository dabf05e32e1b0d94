// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// numbered returns a policy every part of which says its number, from 0 to 63.
func numbered(n int) *flow.Policy {
	address := netip.AddrFrom4([4]byte{10, byte(n), 0, 1})
	key, _ := flow.MakeKey(flow.TCP, netip.AddrPortFrom(address, 50000), netip.MustParseAddrPort("10.0.0.9:22"), 0)
	p := &flow.Policy{
		Source:   fmt.Appendf(nil, "policy %d", n),
		Prefixes: []netip.Prefix{netip.PrefixFrom(address, 32), netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(n)}), 16)},
		Ports:    []flow.PortProtect{{Proto: flow.UDP, Port: uint16(1000 + n)}},
		Flows:    []flow.Key{key},
	}
	for range n + 1 {
		p.Rules = append(p.Rules, flow.Rule{
			Hosts: []netip.Prefix{p.Prefixes[0]}, Ports: []flow.PortRange{{Proto: flow.TCP, First: uint16(n + 1), Last: uint16(n + 1)}},
			Names: []string{fmt.Sprintf("n%d.example", n)}, Action: passing,
		})
	}
	return p
}

// isNumbered returns what is wrong with a policy that was read: whether it is one of numbered.
func isNumbered(p *flow.Policy, stats []RuleStats) error {
	var n int
	if _, err := fmt.Sscanf(string(p.Source), "policy %d", &n); err != nil {
		return err
	}
	want := numbered(n)
	slices.SortFunc(p.Prefixes, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	if len(stats) != n+1 || !slices.Equal(p.Prefixes, want.Prefixes) || !slices.Equal(p.Ports, want.Ports) || !slices.Equal(p.Flows, want.Flows) {
		return fmt.Errorf("the text is of %q, with %d rules; protected %v %v %v", p.Source, len(stats), p.Prefixes, p.Ports, p.Flows)
	}
	return nil
}

// matchesOf returns what the maps have of a bank's names, hosts and ports.
func (r *Rules) matchesOf(t *testing.T, bank uint32) string {
	t.Helper()
	var found []string
	names := r.maps.Names0
	if bank == 1 {
		names = r.maps.Names1
	}
	note := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	note(each(names, func(k *bpfLpmName, set ruleSet) { found = append(found, fmt.Sprintf("%d bits: %x", k.PrefixLen, set)) }))
	note(each(r.maps.Hosts, func(k *bpfHostKey, set ruleSet) {
		if uint32(k.Bank) == bank {
			found = append(found, fmt.Sprintf("%v: %x", k.Addr, set))
		}
	}))
	note(each(r.maps.Ports, func(k *bpfPortKey, set ruleSet) {
		if uint32(k.Bank) == bank {
			found = append(found, fmt.Sprintf("%d: %x", port(k.Port), set))
		}
	}))
	return strings.Join(found, "\n")
}

// TestConcurrentPolicies: ten writers that each have their own view of the maps, as ten processes have, set policies at
// once, fifty times. What is in force is always one of them, whole.
func TestConcurrentPolicies(t *testing.T) {
	h, _ := wired(t)
	attached(t, h, Config{})
	const writers, rounds = 10, 50
	var rules []*Rules
	for range writers {
		in(t, h, func() error {
			p, err := testRoot.open("eth0")
			if err == nil {
				t.Cleanup(func() { p.Close() })
				rules = append(rules, p.rules)
			}
			return err
		})
	}
	if err := rules[0].Set(numbered(0)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reads := 0
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			p, stats, err := rules[0].Policy()
			if err == nil {
				err = isNumbered(p, stats)
			}
			if err != nil {
				t.Error(err)
				return
			}
			reads++
		}
	})
	for range rounds {
		var writing sync.WaitGroup
		for n, r := range rules {
			writing.Go(func() {
				if err := r.Set(numbered(n * 6)); err != nil {
					t.Error(err)
				}
			})
		}
		writing.Wait()
		p, stats, err := rules[0].Policy()
		if err != nil {
			t.Fatal(err)
		}
		if err := isNumbered(p, stats); err != nil {
			t.Fatal(err)
		}
		state, err := rules[0].state()
		if err != nil {
			t.Fatal(err)
		}
		got := rules[0].matchesOf(t, state.Epoch&1)
		// The same policy alone.
		if err := rules[0].Set(numbered(len(stats) - 1)); err != nil {
			t.Fatal(err)
		}
		if want := rules[0].matchesOf(t, (state.Epoch+1)&1); got != want {
			t.Fatalf("after %d rules the matches are\n%s\nwant\n%s", len(stats), got, want)
		}
		if t.Failed() {
			break
		}
	}
	close(stop)
	reading.Wait()
	if reads == 0 {
		t.Error("nothing was read meanwhile")
	}
}

// TestPolicyIsReadWhole: what the policy in force protects is read whole or not at all, while a writer fills and empties
// the other bank of the same map.
func TestPolicyIsReadWhole(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	if err := k.rules.Set(numbered(12)); err != nil {
		t.Fatal(err)
	}
	if err := k.rules.Set(numbered(12)); err != nil {
		t.Fatal(err)
	}
	state, err := k.rules.state()
	if err != nil {
		t.Fatal(err)
	}
	other := (state.Epoch + 1) & 1
	full, err := compileProtected(other, numbered(13))
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			for _, prefixes := range []map[bpfHostKey]uint8{full.prefixes, nil} {
				if err := replace(k.maps.Protect, prefixes, func(k *bpfHostKey) bool { return uint32(k.Bank) == other }); err != nil {
					t.Error(err)
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	want, partly := numbered(12), 0
	for range 100_000 {
		var p flow.Policy
		err := k.rules.readProtected(&state, &p)
		if errors.Is(err, errPartly) {
			partly++
			continue
		}
		if err != nil || len(p.Prefixes) != len(want.Prefixes) || len(p.Ports) != len(want.Ports) || len(p.Flows) != len(want.Flows) {
			t.Errorf("protected are %v %v %v (%v)", p.Prefixes, p.Ports, p.Flows, err)
			break
		}
	}
	close(stop)
	writing.Wait()
	t.Logf("%d reads were given up", partly)
}

// TestFullProtectListIsReplaced: as many prefixes, ports and flows as may be, by as many others, and again by the same.
func TestFullProtectListIsReplaced(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	full := func(second byte) *flow.Policy {
		p := &flow.Policy{Rules: []flow.Rule{{Action: dropping}}}
		for n := range flow.MaxProtected {
			addr := netip.AddrFrom4([4]byte{198, second, byte(n >> 8), byte(n)})
			if n%2 == 1 {
				addr = netip.AddrFrom16([16]byte{0xfd, second, 14: byte(n >> 8), 15: byte(n)})
			}
			p.Prefixes = append(p.Prefixes, netip.PrefixFrom(addr, addr.BitLen()))
			p.Ports = append(p.Ports, flow.PortProtect{Proto: flow.UDP, Port: uint16(int(second)*1024 + n)})
			if n < flow.MaxProtectedFlows {
				p.Flows = append(p.Flows, tcp(n+int(second)*flow.MaxProtectedFlows).key())
			}
		}
		return p
	}
	holds := func(want *flow.Policy) {
		t.Helper()
		p, stats, err := k.rules.Policy()
		if err != nil {
			t.Fatal(err)
		}
		if len(stats) != len(want.Rules) || !same(p.Prefixes, want.Prefixes) || !same(p.Ports, want.Ports) || !same(p.Flows, want.Flows) {
			t.Fatalf("%d rules, %d prefixes, %d ports, %d flows", len(stats), len(p.Prefixes), len(p.Ports), len(p.Flows))
		}
	}
	for _, second := range []byte{18, 19, 19, 20, 18} {
		p := full(second)
		if err := k.rules.Set(p); err != nil {
			t.Fatal(err)
		}
		holds(p)
		for what, change := range map[string]func(*flow.Policy){
			"a prefix":  func(p *flow.Policy) { p.Prefixes = append(p.Prefixes, netip.MustParsePrefix("192.0.2.0/24")) },
			"a port":    func(p *flow.Policy) { p.Ports = append(p.Ports, flow.PortProtect{Proto: flow.TCP, Port: 1}) },
			"a flow":    func(p *flow.Policy) { p.Flows = append(p.Flows, tcp(1).key()) },
			"no prefix": func(p *flow.Policy) { p.Prefixes[7] = netip.Prefix{} },
			"a label":   func(p *flow.Policy) { p.Rules[0].Categories = []string{"nosuch"} },
		} {
			refused := full(second + 1)
			change(refused)
			if err := k.rules.Set(refused); err == nil {
				t.Errorf("one more than may be, %s: no error", what)
			}
			holds(p)
		}
	}
}

// same reports whether two lists have the same items, in any order.
func same[T comparable](a, b []T) bool {
	items := map[T]bool{}
	for _, item := range a {
		items[item] = true
	}
	return len(a) == len(b) && len(items) == len(a) && !slices.ContainsFunc(b, func(item T) bool { return !items[item] })
}

// TestPolicyLock: a process that changes a policy keeps others out until it ends, and those give up.
func TestPolicyLock(t *testing.T) {
	h, _ := wired(t)
	a := attached(t, h, Config{})
	unlock, err := lockPolicies(a.dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockPolicies(a.dir, 0); err == nil || !strings.Contains(err.Error(), "another process has been changing a policy") {
		t.Errorf("the lock is taken twice: %v", err)
	}
	set := make(chan error)
	go func() { set <- a.rules.Set(numbered(2)) }()
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-set; err != nil {
		t.Error(err)
	}
}
