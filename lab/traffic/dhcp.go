// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"net/netip"
	"os"
)

var _ = register(&Program{Name: "dhcp", Category: "background", App: "dhcp", OneLink: true, Clients: 5, Version: "dhclient --version",
	Needs: []Need{{"dnsmasq", "dnsmasq-base"}, {"dhclient", "isc-dhcp-client"}, {"udhcpc", "udhcpc"}}, Start: startDHCP})

// lease asks for an address, uses it for $1 seconds, and gives it back. The rest is the client's command.
const lease = `seconds=$1; shift
"$@" > dhcp.log 2>&1 & client=$!
sleep "$seconds"
kill -0 $client || { cat dhcp.log; exit 1; }
[ "$1" != udhcpc ] || { kill -USR1 $client; sleep 1; } # renew
[ "$1" = udhcpc ] || "$@" -r
kill $client; wait $client; exit 0`

// onLease gives the device the address: a client that renews its lease sends from it.
const onLease = `#!/bin/sh
case $1 in
bound | renew) ip addr replace "$ip/$mask" dev "$interface" ;;
esac
exit 0
`

// startDHCP: machines join the network and leave it (RFC 2131, RFC 8415). They are on the ports of DHCP, because neither
// side takes others.
func startDHCP(ctx context.Context, r *Round) (Session, error) {
	s := r.Server()
	first4, last4 := r.link.prefix4.Addr().As4(), r.link.prefix4.Addr().As4()
	first4[3], last4[3] = 200, 250
	minutes := 2 + r.IntN(600)
	p, err := s.Start(ctx, "dnsmasq", "--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--pid-file", "--port=0", "--no-ping", "--dhcp-authoritative", "--interface=eth0",
		"--dhcp-leasefile="+s.Dir+"/leases", fmt.Sprintf("--dhcp-range=%s,%s,%dm", netip.AddrFrom4(first4), netip.AddrFrom4(last4), minutes),
		fmt.Sprintf("--dhcp-range=%s::1000,%[1]s::1fff,64,%[2]dm", r.link.prefix6.Addr().StringExpanded()[:19], minutes),
		"--dhcp-option=option:domain-search,"+r.name(), "--dhcp-option=option:ntp-server,"+s.Addr4.String(), "--domain="+r.name())
	if err != nil {
		return nil, err
	}
	if err := s.WaitUDP(ctx, p, 67); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		script, err := c.Write("on-lease", onLease)
		if err != nil {
			return err
		}
		if err := os.Chmod(script, 0o755); err != nil {
			return err
		}
		host := pick(c.draw, "laptop", "phone", "desk") + fmt.Sprint(c.IntN(1000))
		seconds := fmt.Sprintf("%.1f", c.Between(2, 12))
		conf, err := c.Write("dhclient.conf", fmt.Sprintf("send host-name \"%s\";\nsend dhcp-client-identifier \"%x\";\nrequest subnet-mask, routers, domain-name, domain-name-servers, ntp-servers, host-name;\n", host, c.Uint64()))
		if err != nil {
			return err
		}
		family := "-4"
		if c.six {
			family = "-6"
		}
		id := c.Uint32()
		command := []string{"dhclient", family, "-d", "-sf", "/bin/true", "-cf", conf, "-lf", fmt.Sprintf("%s/leases%d", c.Dir, id), "-pf", fmt.Sprintf("%s/pid%d", c.Dir, id), "eth0"}
		if !c.six && c.Chance(.5) {
			command = []string{"udhcpc", "-f", "-R", "-i", "eth0", "-s", script, "-t", "5", "-T", "1", "-F", host, "-x", fmt.Sprintf("0x3d:01%012x", c.Uint64()>>16)}
		}
		_, err = c.Run(ctx, "sh", append([]string{"-c", lease, "sh", seconds}, command...)...)
		return err
	}, nil
}
