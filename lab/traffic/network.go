// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/dpclass/dpclass/lab"
)

// The addresses between the routers, and of the routers on the hosts' links. No host has
// such an address.
var linkPrefix = netip.MustParsePrefix("198.18.0.0/15") // RFC 2544, section C.2.2

const (
	gateway4 = "198.19.255.1" // each host's router
	gateway6 = "fe80::1"
)

// network is the part of the lab that all rounds share: three routers in a row.
type network struct {
	lab                 *lab.Lab
	access, router, far *lab.Host
	limits              bool // the kernel has TBF
	delays              bool // the kernel has netem

	mu    sync.Mutex
	used  map[netip.Addr]bool
	links int // number of links so far
}

func newNetwork(ctx context.Context) (*network, error) {
	l, err := lab.New("traffic")
	if err != nil {
		return nil, err
	}
	n := &network{lab: l, used: map[netip.Addr]bool{}}
	if err := n.build(ctx); err != nil {
		_ = l.Close()
		return nil, err
	}
	return n, nil
}

func (n *network) build(ctx context.Context) (err error) {
	for name, host := range map[string]**lab.Host{"access": &n.access, "router": &n.router, "far": &n.far} {
		if *host, err = n.lab.Host(name); err != nil {
			return err
		}
		if err := (*host).Forward(); err != nil {
			return err
		}
	}
	// Super-packets would not be what is on a wire.
	for _, wire := range []lab.Wire{
		{A: lab.End{Host: n.access, Iface: "up", Addrs: []string{"198.18.1.2/24", "fd00:0:0:1::2/64"}},
			B: lab.End{Host: n.router, Iface: "eth0", Addrs: []string{"198.18.1.1/24", "fd00:0:0:1::1/64"}}, NoOffload: true},
		{A: lab.End{Host: n.far, Iface: "up", Addrs: []string{"198.18.2.2/24", "fd00:0:0:2::2/64"}},
			B: lab.End{Host: n.router, Iface: "eth1", Addrs: []string{"198.18.2.1/24", "fd00:0:0:2::1/64"}}, NoOffload: true},
	} {
		if err := n.lab.Wire(wire); err != nil {
			return err
		}
	}
	for host, via := range map[*lab.Host][]string{n.access: {"198.18.1.1", "fd00:0:0:1::1"}, n.far: {"198.18.2.1", "fd00:0:0:2::1"}} {
		for _, address := range via {
			if err := host.Route("default", address); err != nil {
				return err
			}
		}
	}
	_, err = n.router.Run(ctx, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "10kb", "latency", "10ms")
	n.limits = err == nil
	_, err = n.router.Run(ctx, "tc", "qdisc", "replace", "dev", "lo", "root", "netem", "delay", "1ms")
	n.delays = err == nil
	_, _ = n.router.Run(ctx, "tc", "qdisc", "del", "dev", "lo", "root")
	return nil
}

// batch runs commands of "ip" in a host.
func batch(ctx context.Context, host *lab.Host, commands ...string) error {
	cmd, err := host.Command(ctx, "ip", "-batch", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	p, err := host.StartCommand(cmd)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("host %q: ip -batch: %w: %s", host.Name(), err, p.Output())
	}
	return nil
}

// claim returns a stack whose addresses no host in the lab has now.
func (n *network) claim(d draw) stack {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		s := d.newStack()
		if !n.used[s.addr4] && !n.used[s.addr6] {
			n.used[s.addr4], n.used[s.addr6] = true, true
			return s
		}
	}
}

// release gives the addresses of a host back.
func (n *network) release(s stack) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, s.addr4)
	delete(n.used, s.addr6)
}

// side returns the router of the clients' or of the servers' side, with the addresses
// that the router in the middle reaches it by.
func (n *network) side(far bool) (host *lab.Host, via4, via6 string) {
	if far {
		return n.far, "198.18.2.2", "fd00:0:0:2::2"
	}
	return n.access, "198.18.1.2", "fd00:0:0:1::2"
}

// attach connects a host to the clients' side or the far side.
func (n *network) attach(ctx context.Context, host *lab.Host, s stack, far bool) (link string, err error) {
	side, via4, via6 := n.side(far)
	n.mu.Lock()
	n.links++
	link = fmt.Sprintf("link%d", n.links)
	n.mu.Unlock()
	if err := host.Lab().Wire(lab.Wire{NoOffload: true,
		A: lab.End{Host: host, Iface: "eth0", Addrs: []string{s.addr4.String() + "/32", s.addr6.String() + "/128"}},
		B: lab.End{Host: side, Iface: link, Addrs: []string{gateway4 + "/32", gateway6 + "/64"}},
	}); err != nil {
		return "", err
	}
	if err := s.apply(host); err != nil {
		return "", err
	}
	if err := batch(ctx, host,
		fmt.Sprintf("route add %s dev eth0", gateway4),
		fmt.Sprintf("route add default via %s dev eth0 src %s advmss %d", gateway4, s.addr4, s.mss),
		fmt.Sprintf("route add ::/0 via %s dev eth0 src %s advmss %d", gateway6, s.addr6, s.mss-20),
	); err != nil {
		return "", err
	}
	// A round that is run again has the addresses of the first try, whose links go a little later.
	if err := batch(ctx, side, fmt.Sprintf("route replace %s dev %s", s.addr4, link), fmt.Sprintf("route replace %s dev %s", s.addr6, link)); err != nil {
		return "", err
	}
	if err := batch(ctx, n.router, fmt.Sprintf("route replace %s via %s", s.addr4, via4), fmt.Sprintf("route replace %s via %s", s.addr6, via6)); err != nil {
		return "", err
	}
	for on, device := range map[*lab.Host]string{host: "eth0", side: link} {
		if err := n.shape(ctx, on, device, s); err != nil {
			return "", err
		}
	}
	return link, nil
}

// apply gives a host the settings of a stack.
func (s stack) apply(host *lab.Host) error {
	settings := s.sysctls()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if err := host.Sysctl(name, settings[name]); err != nil {
			return err
		}
	}
	return nil
}

// detach removes the routes to a host. Its link goes with its namespace.
func (n *network) detach(ctx context.Context, s stack) error {
	defer n.release(s)
	return batch(ctx, n.router, fmt.Sprintf("route del %s", s.addr4), fmt.Sprintf("route del %s", s.addr6))
}

// shape limits the rate of a device and delays its packets, as far as the kernel can.
func (n *network) shape(ctx context.Context, host *lab.Host, device string, s stack) error {
	parent := []string{"root"}
	if n.delays {
		if _, err := host.Run(ctx, "tc", "qdisc", "add", "dev", device, "root", "handle", "1:", "netem", "delay",
			fmt.Sprintf("%dms", s.delay), fmt.Sprintf("%dms", s.delay/10), "limit", "5000"); err != nil {
			return err
		}
		parent = []string{"parent", "1:"}
	}
	if n.limits {
		_, err := host.Run(ctx, "tc", append(append([]string{"qdisc", "add", "dev", device}, parent...),
			"tbf", "rate", fmt.Sprintf("%dkbit", s.rate), "burst", "64kb", "latency", "200ms")...)
		return err
	}
	return nil
}
