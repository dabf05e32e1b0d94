// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"net/netip"

	"github.com/dpclass/dpclass/flow"
)

// The kernel's keys have ports in network byte order; the Go structs read them in the
// machine's byte order.
func port(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

func vlanBytes(vlan uint32) [3]uint8 {
	return [3]uint8{uint8(vlan >> 16), uint8(vlan >> 8), uint8(vlan)}
}

func vlanOf(b [3]uint8) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

// wideKey returns the key in the kernel's common form and the family, 4 or 6.
func wideKey(k flow.Key) (key bpfFlowKey6, family uint8) {
	family = 4
	if k.Is6() {
		family = 6
		key.AddrA, key.AddrB = k.A.Addr().As16(), k.B.Addr().As16()
	} else {
		a, b := k.A.Addr().As4(), k.B.Addr().As4()
		copy(key.AddrA[:], a[:])
		copy(key.AddrB[:], b[:])
	}
	key.PortA, key.PortB = port(k.A.Port()), port(k.B.Port())
	key.Proto = uint8(k.Proto)
	key.Vlan = vlanBytes(k.VLAN)
	return key, family
}

func keyOf4(k *bpfFlowKey) flow.Key {
	return flow.Key{
		A:     netip.AddrPortFrom(netip.AddrFrom4(k.AddrA), port(k.PortA)),
		B:     netip.AddrPortFrom(netip.AddrFrom4(k.AddrB), port(k.PortB)),
		Proto: flow.Proto(k.Proto), VLAN: vlanOf(k.Vlan),
	}
}

func keyOf6(k *bpfFlowKey6) flow.Key {
	return flow.Key{
		A:     netip.AddrPortFrom(netip.AddrFrom16(k.AddrA), port(k.PortA)),
		B:     netip.AddrPortFrom(netip.AddrFrom16(k.AddrB), port(k.PortB)),
		Proto: flow.Proto(k.Proto), VLAN: vlanOf(k.Vlan),
	}
}

// keyOf reads the common form.
func keyOf(k *bpfFlowKey6, family uint8) flow.Key {
	if family == 6 {
		return keyOf6(k)
	}
	narrow := bpfFlowKey{PortA: k.PortA, PortB: k.PortB, Proto: k.Proto, Vlan: k.Vlan}
	copy(narrow.AddrA[:], k.AddrA[:])
	copy(narrow.AddrB[:], k.AddrB[:])
	return keyOf4(&narrow)
}

// narrowKey is the key of the IPv4 tables.
func narrowKey(k flow.Key) bpfFlowKey {
	return bpfFlowKey{
		AddrA: k.A.Addr().As4(), AddrB: k.B.Addr().As4(),
		PortA: port(k.A.Port()), PortB: port(k.B.Port()),
		Proto: uint8(k.Proto), Vlan: vlanBytes(k.VLAN),
	}
}
