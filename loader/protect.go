// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/dpclass/dpclass/flow"
)

// protected is what a policy protects, as keys of a bank.
type protected struct {
	prefixes map[bpfHostKey]uint8
	ports    map[bpfProtectPort]uint8
	flows    map[bpfFlowKey6]uint8
}

// compileProtected returns what a policy protects.
func compileProtected(bank uint32, p *flow.Policy) (*protected, error) {
	out := &protected{map[bpfHostKey]uint8{}, map[bpfProtectPort]uint8{}, map[bpfFlowKey6]uint8{}}
	for _, prefix := range p.Prefixes {
		key, ok := hostKey(bank, prefix)
		if !ok {
			return nil, fmt.Errorf("protect %v: not a prefix", prefix)
		}
		out.prefixes[key] = 1
	}
	for _, entry := range p.Ports {
		out.ports[bpfProtectPort{Port: port(entry.Port), Proto: uint8(entry.Proto), Bank: uint8(bank)}] = 1
	}
	for _, entry := range p.Flows {
		key, family := flowInBank(bank, entry)
		out.flows[key] = family
	}
	for _, list := range []struct {
		what       string
		have, most int
	}{
		{"prefixes", len(out.prefixes), flow.MaxProtected},
		{"ports", len(out.ports), flow.MaxProtected},
		{"flows", len(out.flows), flow.MaxProtectedFlows},
	} {
		if list.have > list.most {
			return nil, fmt.Errorf("protect has %d %s: at most %d", list.have, list.what, list.most)
		}
	}
	return out, nil
}

// hostKey returns the key of a prefix in a bank. ok is false if it is not a prefix.
func hostKey(bank uint32, prefix netip.Prefix) (key bpfHostKey, ok bool) {
	if prefix.Addr().Is4In6() {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	if prefix = prefix.Masked(); !prefix.IsValid() {
		return key, false
	}
	key = bpfHostKey{PrefixLen: uint32(bpfLimitHostFixedBits) + uint32(prefix.Bits()), Bank: uint8(bank), Family: 6}
	if prefix.Addr().Is4() {
		addr := prefix.Addr().As4()
		copy(key.Addr[:], addr[:])
		key.Family = 4
	} else {
		key.Addr = prefix.Addr().As16()
	}
	return key, true
}

// flowInBank returns the key of a protected flow, which has the bank in place of VLAN ids,
// and its family.
func flowInBank(bank uint32, k flow.Key) (key bpfFlowKey6, family uint8) {
	k.VLAN = 0
	key, family = wideKey(k)
	key.Vlan[0] = uint8(bank)
	return key, family
}

// writeProtected writes what a policy protects into a bank that is not in force.
func (r *Rules) writeProtected(bank uint32, p *protected) error {
	b := uint8(bank)
	if err := replace(r.maps.Protect, p.prefixes, func(k *bpfHostKey) bool { return k.Bank == b }); err != nil {
		return err
	}
	if err := replace(r.maps.ProtectPorts, p.ports, func(k *bpfProtectPort) bool { return k.Bank == b }); err != nil {
		return err
	}
	return replace(r.maps.ProtectFlows, p.flows, func(k *bpfFlowKey6) bool { return k.Vlan[0] == b })
}

// readProtected adds to a policy what the maps say it protects.
func (r *Rules) readProtected(bank uint32, p *flow.Policy) error {
	// Sets, because reading begins again where another process deletes the key of the other bank that is next.
	b, prefixes, ports, flows := uint8(bank), map[netip.Prefix]bool{}, map[flow.PortProtect]bool{}, map[flow.Key]bool{}
	err := errors.Join(
		each(r.maps.Protect, func(k *bpfHostKey, _ uint8) {
			addr := netip.AddrFrom16(k.Addr)
			if k.Family == 4 {
				addr = netip.AddrFrom4([4]byte(k.Addr[:4]))
			}
			if k.Bank == b {
				prefixes[netip.PrefixFrom(addr, int(k.PrefixLen)-int(bpfLimitHostFixedBits))] = true
			}
		}),
		each(r.maps.ProtectPorts, func(k *bpfProtectPort, _ uint8) {
			if k.Bank == b {
				ports[flow.PortProtect{Proto: flow.Proto(k.Proto), Port: port(k.Port)}] = true
			}
		}),
		each(r.maps.ProtectFlows, func(k *bpfFlowKey6, family uint8) {
			if k.Vlan[0] == b {
				plain := *k
				plain.Vlan[0] = 0
				flows[keyOf(&plain, family)] = true
			}
		}),
	)
	p.Prefixes, p.Ports, p.Flows = slices.Collect(maps.Keys(prefixes)), slices.Collect(maps.Keys(ports)), slices.Collect(maps.Keys(flows))
	return err
}
