// SPDX-License-Identifier: Apache-2.0

package lab

import "fmt"

// Topology holds the settings of both wires of a router. The zero value is the usual
// case: see [Wire].
type Topology struct {
	MTU       int
	NoOffload bool
}

// Routed is a client and a server with a router between them:
//
//	client eth0 -- eth0 router eth1 -- eth0 server
//
// Tests and the demo watch the router's eth0: what the client sends goes "in" there.
type Routed struct {
	Client, Router, Server *Host

	ClientAddr4, ClientAddr6 string // 10.0.1.2, fd00:1::2
	ServerAddr4, ServerAddr6 string // 10.0.2.2, fd00:2::2
}

// Router creates three hosts with their wires, addresses and routes.
func (l *Lab) Router(topology Topology) (*Routed, error) {
	r := &Routed{ClientAddr4: "10.0.1.2", ClientAddr6: "fd00:1::2", ServerAddr4: "10.0.2.2", ServerAddr6: "fd00:2::2"}
	for _, host := range []struct {
		name string
		to   **Host
	}{{"client", &r.Client}, {"router", &r.Router}, {"server", &r.Server}} {
		made, err := l.Host(host.name)
		if err != nil {
			return nil, err
		}
		*host.to = made
	}
	wires := []Wire{
		{
			A: End{Host: r.Client, Iface: "eth0", Addrs: []string{r.ClientAddr4 + "/24", r.ClientAddr6 + "/64"}},
			B: End{Host: r.Router, Iface: "eth0", Addrs: []string{"10.0.1.1/24", "fd00:1::1/64"}},
		},
		{
			A: End{Host: r.Server, Iface: "eth0", Addrs: []string{r.ServerAddr4 + "/24", r.ServerAddr6 + "/64"}},
			B: End{Host: r.Router, Iface: "eth1", Addrs: []string{"10.0.2.1/24", "fd00:2::1/64"}},
		},
	}
	for _, wire := range wires {
		wire.MTU, wire.NoOffload = topology.MTU, topology.NoOffload
		if err := l.Wire(wire); err != nil {
			return nil, err
		}
	}
	if err := r.Router.Forward(); err != nil {
		return nil, err
	}
	for _, route := range []struct {
		host *Host
		via  string
	}{{r.Client, "10.0.1.1"}, {r.Client, "fd00:1::1"}, {r.Server, "10.0.2.1"}, {r.Server, "fd00:2::1"}} {
		if err := route.host.Route("default", route.via); err != nil {
			return nil, fmt.Errorf("router: %w", err)
		}
	}
	return r, nil
}
