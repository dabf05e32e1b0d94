// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// protected is what a policy protects, as keys of a bank.
type protected struct {
	prefixes map[bpfHostKey]uint8
	ports    map[bpfProtectPort]uint8
	flows    map[bpfFlowKey6]uint8
}

// size returns the number of keys.
func (p *protected) size() uint32 { return uint32(len(p.prefixes) + len(p.ports) + len(p.flows)) }

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

// errPartly says that the walk of a map that another process is writing missed entries, or met too many.
var errPartly = errors.New("what the policy protects changed while it was read")

// readProtected adds to a policy what the maps say it protects. The error is errPartly if
// the other bank was written meanwhile and this one was not seen whole: both are in one
// map, and a change next to the place of a walk can end it early (trie_get_next_key in
// kernel/bpf/lpm_trie.c, htab_map_get_next_key in hashtab.c).
func (r *Rules) readProtected(state *bpfPolicyState, p *flow.Policy) error {
	// Sets, because a walk begins again where another process deletes the key that is next.
	b, found := uint8(state.Epoch&1), protected{map[bpfHostKey]uint8{}, map[bpfProtectPort]uint8{}, map[bpfFlowKey6]uint8{}}
	err := errors.Join(
		eachInBank(r.maps.Protect, found.prefixes, func(k *bpfHostKey) bool { return k.Bank == b }),
		eachInBank(r.maps.ProtectPorts, found.ports, func(k *bpfProtectPort) bool { return k.Bank == b }),
		eachInBank(r.maps.ProtectFlows, found.flows, func(k *bpfFlowKey6) bool { return k.Vlan[0] == b }),
	)
	if errors.Is(err, ebpf.ErrIterationAborted) || err == nil && found.size() != state.Protects {
		return errPartly
	}
	if err != nil {
		return err
	}
	for k := range found.prefixes {
		addr := netip.AddrFrom16(k.Addr)
		if k.Family == 4 {
			addr = netip.AddrFrom4([4]byte(k.Addr[:4]))
		}
		p.Prefixes = append(p.Prefixes, netip.PrefixFrom(addr, int(k.PrefixLen)-int(bpfLimitHostFixedBits)))
	}
	for k := range found.ports {
		p.Ports = append(p.Ports, flow.PortProtect{Proto: flow.Proto(k.Proto), Port: port(k.Port)})
	}
	for k, family := range found.flows {
		k.Vlan[0] = 0
		p.Flows = append(p.Flows, keyOf(&k, family))
	}
	return nil
}

// eachInBank adds a bank's entries to found.
func eachInBank[K comparable](m *ebpf.Map, found map[K]uint8, inBank func(*K) bool) error {
	return each(m, func(k *K, value uint8) {
		if inBank(k) {
			found[*k] = value
		}
	})
}
