// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// ruleSet is a set of rules; bit 0 is the first rule.
type ruleSet = uint64

// matchFlags returns the flags of a rule for the fields that it does not set, and for its
// directions.
func matchFlags(r *flow.Rule) (flags bpfRuleFlag) {
	for flag, applies := range map[bpfRuleFlag]bool{
		bpfRuleFlagRuleAnyName:     r.Names == nil,
		bpfRuleFlagRuleAnyHost:     r.Hosts == nil,
		bpfRuleFlagRuleAnyPort:     r.Ports == nil,
		bpfRuleFlagRuleAnyProtocol: r.Protocols == nil,
		bpfRuleFlagRuleAnySource:   r.Sources == nil,
		bpfRuleFlagRuleNoVerdict:   !r.NeedsVerdict(),
		bpfRuleFlagRuleNotIn:       r.Directions != nil && !slices.Contains(r.Directions, flow.In),
		bpfRuleFlagRuleNotOut:      r.Directions != nil && !slices.Contains(r.Directions, flow.Out),
	} {
		if applies {
			flags |= flag
		}
	}
	return flags
}

// matches says which rules match a name, a host or a port. Each entry of a map includes the
// rules of all shorter prefixes, because the kernel finds the longest prefix only.
type matches struct {
	names map[string]ruleSet
	hosts map[netip.Prefix]ruleSet
	ports map[portPrefix]ruleSet
}

// portPrefix is the ports whose first bits are those of first.
type portPrefix struct {
	proto flow.Proto
	first uint16
	bits  int
}

// compileMatches returns what the rules match.
func compileMatches(rules []flow.Rule) (*matches, error) {
	m := &matches{map[string]ruleSet{}, map[netip.Prefix]ruleSet{}, map[portPrefix]ruleSet{}}
	ports := map[flow.Proto]*[1 << 16]ruleSet{}
	for n := range rules {
		r, set := &rules[n], ruleSet(1)<<n
		for _, name := range r.Names {
			if name == "" || len(name) > flow.MaxName {
				return nil, fmt.Errorf("rule %d: name %q: %d bytes, want 1 to %d", n+1, name, len(name), flow.MaxName)
			}
			m.names[name] |= set
		}
		for _, host := range r.Hosts {
			if host.Addr().Is4In6() {
				host = netip.PrefixFrom(host.Addr().Unmap(), host.Bits()-96)
			}
			if !host.IsValid() {
				return nil, fmt.Errorf("rule %d: host %v: not a prefix", n+1, host)
			}
			m.hosts[host.Masked()] |= set
		}
		for _, p := range r.Ports {
			if p.First > p.Last {
				return nil, fmt.Errorf("rule %d: ports %d to %d: the first is above the last", n+1, p.First, p.Last)
			}
			for _, proto := range []flow.Proto{flow.TCP, flow.UDP} {
				if p.Proto != 0 && p.Proto != proto {
					continue
				}
				if ports[proto] == nil {
					ports[proto] = new([1 << 16]ruleSet)
				}
				for port := int(p.First); port <= int(p.Last); port++ {
					ports[proto][port] |= set
				}
			}
		}
	}
	if len(m.names) > flow.MaxMatches || len(m.hosts) > flow.MaxMatches {
		return nil, fmt.Errorf("%d names and %d hosts: at most %d of each", len(m.names), len(m.hosts), flow.MaxMatches)
	}
	m.unite()
	for proto, sets := range ports {
		m.addPorts(proto, sets[:], 0)
	}
	return m, nil
}

// unite adds to each name and host the rules of those that contain it.
func (m *matches) unite() {
	names := map[string]ruleSet{}
	for name := range m.names {
		for n := range len(name) {
			if n == 0 || name[n-1] == '.' {
				names[name] |= m.names[name[n:]]
			}
		}
	}
	hosts := map[netip.Prefix]ruleSet{}
	for host := range m.hosts {
		for length := range host.Bits() + 1 {
			hosts[host] |= m.hosts[netip.PrefixFrom(host.Addr(), length).Masked()]
		}
	}
	m.names, m.hosts = names, hosts
}

// addPorts adds the ports from first on, as few prefixes. The number of sets is a power of
// two.
func (m *matches) addPorts(proto flow.Proto, sets []ruleSet, first uint16) {
	if half := len(sets) / 2; half > 0 && slices.ContainsFunc(sets, func(s ruleSet) bool { return s != sets[0] }) {
		m.addPorts(proto, sets[:half], first)
		m.addPorts(proto, sets[half:], first+uint16(half))
		return
	}
	if sets[0] != 0 {
		m.ports[portPrefix{proto, first, 16 - bits.TrailingZeros(uint(len(sets)))}] = sets[0]
	}
}

// writeMatches writes what the rules match into a bank that is not in force.
func (r *Rules) writeMatches(bank uint32, m *matches) error {
	names, hosts, ports := map[bpfLpmName]ruleSet{}, map[bpfHostKey]ruleSet{}, map[bpfPortKey]ruleSet{}
	for name, set := range m.names {
		names[nameKey(name)] = set
	}
	for host, set := range m.hosts {
		key, _ := hostKey(bank, host)
		hosts[key] = set
	}
	for p, set := range m.ports {
		ports[bpfPortKey{PrefixLen: portFixedBits + uint32(p.bits), Bank: uint8(bank), Proto: uint8(p.proto), Port: port(p.first)}] = set
	}
	nameMap := [2]*ebpf.Map{r.maps.Names0, r.maps.Names1}[bank]
	if err := replace(nameMap, names, func(*bpfLpmName) bool { return true }); err != nil {
		return err
	}
	if err := replace(r.maps.Hosts, hosts, func(k *bpfHostKey) bool { return k.Bank == uint8(bank) }); err != nil {
		return err
	}
	return replace(r.maps.Ports, ports, func(k *bpfPortKey) bool { return k.Bank == uint8(bank) })
}

// portFixedBits are the bits of a key before the port.
const portFixedBits = 16

// replace makes the entries of a bank those of want. It deletes before it adds: two full
// banks leave no room for more, and kernels before 6.13 need room to replace an entry of a
// trie.
func replace[K, V comparable](m *ebpf.Map, want map[K]V, inBank func(*K) bool) error {
	var drop []K
	have := map[K]bool{}
	err := each(m, func(key *K, value V) {
		if !inBank(key) {
			return
		}
		if wanted, ok := want[*key]; ok && wanted == value {
			have[*key] = true
		} else {
			drop = append(drop, *key)
		}
	})
	if err != nil {
		return err
	}
	for n := range drop {
		if err := m.Delete(&drop[n]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from map %v: %w", m, err)
		}
	}
	for key, value := range want {
		if have[key] {
			continue
		}
		if err := m.Put(&key, value); err != nil {
			return fmt.Errorf("write to map %v: %w", m, err)
		}
	}
	return nil
}

// each calls fn with every entry of a map.
func each[K, V any](m *ebpf.Map, fn func(*K, V)) error {
	var key K
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		fn(&key, value)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read map %v: %w", m, err)
	}
	return nil
}
