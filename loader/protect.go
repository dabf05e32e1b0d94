// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// protect adds what the policy protects. The function that it returns removes what only
// the previous policy protected. Until it is called, both are protected.
func (r *Rules) protect(p *flow.Policy) (stale func() error, err error) {
	one := uint8(1)
	prefixes, prefixes6 := map[bpfLpm4]bool{}, map[bpfLpm6]bool{}
	for _, prefix := range p.Prefixes {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()).Masked()
		if prefix.Addr().Is4() {
			key := bpfLpm4{PrefixLen: uint32(prefix.Bits()), Addr: prefix.Addr().As4()}
			prefixes[key], err = true, r.maps.Protect.Put(&key, one)
		} else {
			key := bpfLpm6{PrefixLen: uint32(prefix.Bits()), Addr: prefix.Addr().As16()}
			prefixes6[key], err = true, r.maps.Protect6.Put(&key, one)
		}
		if err != nil {
			return nil, fmt.Errorf("protect %v: %w", prefix, err)
		}
	}
	ports, flows := map[bpfProtectPort]bool{}, map[bpfFlowKey6]bool{}
	for _, protected := range p.Ports {
		key := bpfProtectPort{Port: port(protected.Port), Proto: uint8(protected.Proto)}
		ports[key] = true
		if err := r.maps.ProtectPorts.Put(&key, one); err != nil {
			return nil, fmt.Errorf("protect %v/%d: %w", protected.Proto, protected.Port, err)
		}
	}
	for _, protected := range p.Flows {
		protected.VLAN = 0
		key, _ := wideKey(protected)
		flows[key] = true
		if err := r.maps.ProtectFlows.Put(&key, one); err != nil {
			return nil, fmt.Errorf("protect flow %q: %w", protected, err)
		}
	}
	return func() error {
		return errors.Join(
			keepOnly(r.maps.Protect, prefixes), keepOnly(r.maps.Protect6, prefixes6),
			keepOnly(r.maps.ProtectPorts, ports), keepOnly(r.maps.ProtectFlows, flows))
	}, nil
}

func keepOnly[K comparable](m *ebpf.Map, keep map[K]bool) error {
	return deleteFrom(m, func(key *K) bool { return !keep[*key] })
}

// deleteFrom deletes the entries whose key is unwanted.
func deleteFrom[K any](m *ebpf.Map, unwanted func(*K) bool) error {
	var key K
	var drop []K
	value := make([]byte, m.ValueSize())
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if unwanted(&key) {
			drop = append(drop, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read map %v: %w", m, err)
	}
	for n := range drop {
		if err := m.Delete(&drop[n]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from map %v: %w", m, err)
		}
	}
	return nil
}
