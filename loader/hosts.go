// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// HostUse is what a host has used of a rule's quota today.
type HostUse struct {
	Host  netip.Prefix // its address, or the prefix that makes it
	Bytes uint64       // IP bytes, both directions
}

// Hosts returns the hosts that a rule, numbered from 1, has counted for its quota today, those
// that have used most first.
func (r *Rules) Hosts(rule int) (uses []HostUse, err error) {
	state, err := r.state()
	if err != nil {
		return nil, err
	}
	rules, err := r.bank(state.Epoch & 1)
	if err != nil || rule < 1 || rule > len(rules) {
		return nil, err
	}
	var active bpfActive
	if err := r.maps.ActiveRules.Lookup(state.Epoch&1, &active); err != nil {
		return nil, err
	}
	of := &rules[rule-1]
	err = each(r.maps.HostUses, func(key *bpfRuleHost, use bpfHostUse) {
		if key.Rule == of.Id && use.Day == active.Day && use.Bytes > 0 {
			uses = append(uses, HostUse{hostPrefix(key, of.HostMask), use.Bytes})
		}
	})
	slices.SortFunc(uses, func(a, b HostUse) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), a.Host.Addr().Compare(b.Host.Addr()))
	})
	return uses, err
}

// hostPrefix returns a host of a rule.
func hostPrefix(key *bpfRuleHost, mask [2]uint64) netip.Prefix {
	var addr [16]byte
	binary.NativeEndian.PutUint64(addr[:], key.Addr[0])
	binary.NativeEndian.PutUint64(addr[8:], key.Addr[1])
	if key.Family == 4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(addr[:])), 32)
	}
	return netip.PrefixFrom(netip.AddrFrom16(addr), bits.OnesCount64(mask[0])+bits.OnesCount64(mask[1]))
}
