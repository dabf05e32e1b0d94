// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"net/netip"
	"strings"
)

// Proto is the IANA number of an IP protocol. dpclass tracks flows of two of them.
type Proto uint8

// The protocols that have flows.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// protoNames are the protocols that have flows.
var protoNames = map[Proto]string{TCP: "tcp", UDP: "udp"}

// String returns "tcp", "udp" or "proto-N".
func (p Proto) String() string {
	if name, ok := protoNames[p]; ok {
		return name
	}
	return fmt.Sprintf("proto-%d", uint8(p))
}

// ParseProto returns the protocol of that name, in upper or lower case. ok is false if no
// protocol with flows has the name.
func ParseProto(name string) (proto Proto, ok bool) {
	for proto, known := range protoNames {
		if strings.EqualFold(name, known) {
			return proto, true
		}
	}
	return 0, false
}

// Key is the canonical 5-tuple of a flow: packets of both directions have the same Key.
// A is the endpoint that sorts first, by address and then by port. VLAN is
// outer id << 12 | inner id if the interface tells VLANs apart, else 0.
type Key struct {
	A, B  netip.AddrPort
	Proto Proto
	VLAN  uint32
}

// MakeKey returns the canonical key of a packet from src to dst. fromA reports whether
// src is the key's A.
func MakeKey(proto Proto, src, dst netip.AddrPort, vlan uint32) (key Key, fromA bool) {
	src = netip.AddrPortFrom(src.Addr().Unmap().WithZone(""), src.Port())
	dst = netip.AddrPortFrom(dst.Addr().Unmap().WithZone(""), dst.Port())
	if src.Compare(dst) <= 0 {
		return Key{A: src, B: dst, Proto: proto, VLAN: vlan}, true
	}
	return Key{A: dst, B: src, Proto: proto, VLAN: vlan}, false
}

// DNSPort is the port of DNS servers (RFC 1035, section 4.2).
const DNSPort = 53

// IsDNS reports whether either port is that of DNS. Such a flow is never sampled: its
// protocol is dns whatever its payload is.
func (k Key) IsDNS() bool { return k.A.Port() == DNSPort || k.B.Port() == DNSPort }

// Is6 reports whether the flow is an IPv6 flow.
func (k Key) Is6() bool { return k.A.Addr().Is6() }

// Mapped returns the key of an IPv4 flow with IPv4-mapped IPv6 addresses
// (::ffff:10.0.0.2). IPv6 packets with such addresses are rare; they form a separate
// flow.
func (k Key) Mapped() Key {
	for _, end := range []*netip.AddrPort{&k.A, &k.B} {
		*end = netip.AddrPortFrom(netip.AddrFrom16(end.Addr().As16()), end.Port())
	}
	return k
}

// String returns the key as a FLOW expression: "tcp 10.0.0.2:4000 10.0.0.1:80".
func (k Key) String() string {
	return k.Proto.String() + " " + k.A.String() + " " + k.B.String()
}

// ParseKey reads a FLOW expression: the protocol and both endpoints in any order. IPv6
// addresses are in brackets ("udp [fd00::1]:5000 [fd00::2]:4000").
func ParseKey(expr string) (Key, error) {
	const want = `want "tcp|udp ADDR:PORT ADDR:PORT", such as "tcp 10.0.0.2:4000 10.0.0.1:80" or "udp [fd00::1]:5000 [fd00::2]:4000"`
	words := strings.Fields(expr)
	if len(words) != 3 {
		return Key{}, fmt.Errorf("flow %q: %d words; %s", expr, len(words), want)
	}
	proto, ok := ParseProto(words[0])
	if !ok {
		return Key{}, fmt.Errorf("flow %q: protocol %q; %s", expr, words[0], want)
	}
	var ends [2]netip.AddrPort
	for i, word := range words[1:] {
		end, err := netip.ParseAddrPort(word)
		if err != nil {
			return Key{}, fmt.Errorf("flow %q: endpoint %q: %w; %s", expr, word, err, want)
		}
		ends[i] = netip.AddrPortFrom(end.Addr().Unmap().WithZone(""), end.Port())
	}
	if ends[0].Addr().Is4() != ends[1].Addr().Is4() {
		return Key{}, fmt.Errorf("flow %q: one endpoint is IPv4 and one is IPv6", expr)
	}
	key, _ := MakeKey(proto, ends[0], ends[1], 0)
	return key, nil
}
