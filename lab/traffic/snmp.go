// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"net/netip"
)

var _ = register(&Program{Name: "snmp", Category: "background", App: "snmp", Version: "snmpbulkwalk -V",
	Needs: []Need{{"snmpd", "snmpd"}, {"snmpbulkwalk", "snmp"}}, Start: startSNMP})

// startSNMP: a monitor reads parts of an agent's tree.
func startSNMP(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	conf, err := s.Write("snmpd.conf", "rocommunity public\nrocommunity6 public\n")
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "snmpd", "-f", "-Lo", "-C", "-c", conf, "-p", s.Dir+"/pid", fmt.Sprintf("udp:%d", port), fmt.Sprintf("udp6:%d", port))
	if err != nil {
		return nil, err
	}
	if err := s.WaitUDP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		protocol := "udp"
		if c.Server().Is6() {
			protocol = "udp6"
		}
		agent := protocol + ":" + netip.AddrPortFrom(c.Server(), uint16(port)).String()
		_, err := c.Run(ctx, pick(c.draw, "snmpbulkwalk", "snmpwalk"), "-v", "2c", "-c", "public", "-t", "2", agent,
			pick(c.draw, "1.3.6.1.2.1.1", "1.3.6.1.2.1.2", "1.3.6.1.2.1.4", "1.3.6.1.2.1.25.2"))
		return err
	}, nil
}
