// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/dpclass/dpclass/lab"
)

// link is the one link that all hosts of a round are on, as those of a home are: a bridge, and no way out. What is
// sent to all (RFC 919) or to a group of the link crosses no router, so it can be seen only here.
type link struct {
	bridge           *lab.Host
	prefix4, prefix6 netip.Prefix
	used             map[byte]bool // last bytes of addresses
	ports            int
}

// bridgeDevice is the bridge in the network namespace that bridges.
const bridgeDevice = "br0"

func (r *Round) newLink(ctx context.Context) (err error) {
	l := &link{prefix4: netip.PrefixFrom(r.addr4(), 24).Masked(), prefix6: netip.PrefixFrom(r.addr6(), 64).Masked(), used: map[byte]bool{}}
	if l.bridge, err = r.lab.Host("bridge"); err != nil {
		return err
	}
	r.link = l
	return batch(ctx, l.bridge, "link add "+bridgeDevice+" type bridge mcast_snooping 0 forward_delay 0", "link set "+bridgeDevice+" up")
}

// stack draws the settings of a host, with addresses of the link. Addresses from 200 on are left to DHCP.
func (l *link) stack(d draw) stack {
	s := d.newStack()
	last := byte(1 + d.IntN(198))
	for l.used[last] {
		last = byte(1 + d.IntN(198))
	}
	l.used[last] = true
	a4, a6 := l.prefix4.Addr().As4(), l.prefix6.Addr().As16()
	a4[3], a6[15] = last, last
	s.addr4, s.addr6 = netip.AddrFrom4(a4), netip.AddrFrom16(a6)
	return s
}

// attach connects a host to the link.
func (l *link) attach(ctx context.Context, n *network, host *lab.Host, s stack) error {
	l.ports++
	port := fmt.Sprintf("port%d", l.ports)
	if err := host.Lab().Wire(lab.Wire{NoOffload: true,
		A: lab.End{Host: host, Iface: "eth0", Addrs: []string{netip.PrefixFrom(s.addr4, 24).String(), netip.PrefixFrom(s.addr6, 64).String()}},
		B: lab.End{Host: l.bridge, Iface: port},
	}); err != nil {
		return err
	}
	if err := s.apply(host); err != nil {
		return err
	}
	// Programs that name no device send to groups by the default route.
	if err := batch(ctx, host, "route add default dev eth0", "route add ::/0 dev eth0"); err != nil {
		return err
	}
	if err := batch(ctx, l.bridge, "link set "+port+" master "+bridgeDevice); err != nil {
		return err
	}
	for on, device := range map[*lab.Host]string{host: "eth0", l.bridge: port} {
		if err := n.shape(ctx, on, device, s); err != nil {
			return err
		}
	}
	return nil
}
