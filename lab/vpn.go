// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
)

// Tunnel is an OpenVPN tunnel over UDP between two hosts.
type Tunnel struct {
	Server, Client *Process

	ServerAddr, ClientAddr string // addresses inside the tunnel
}

// OpenVPN starts a tunnel from the client to the server's address and waits until it is
// up. Both hosts get a device tun0.
func OpenVPN(ctx context.Context, client, server *Host, serverAddr string, port int) (*Tunnel, error) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return nil, fmt.Errorf("openvpn needs tun devices: %w", err)
	}
	dir, err := server.mkdir("openvpn")
	if err != nil {
		return nil, err
	}
	ca, err := NewAuthority(dir)
	if err != nil {
		return nil, err
	}
	t := &Tunnel{ServerAddr: "10.9.0.1", ClientAddr: "10.9.0.2"}
	for _, end := range []struct {
		host *Host
		name string
		to   **Process
		args []string
	}{
		{server, "server", &t.Server, []string{"--tls-server", "--dh", "none", "--ifconfig", t.ServerAddr, t.ClientAddr,
			"--lport", fmt.Sprint(port), "--float"}},
		{client, "client", &t.Client, []string{"--tls-client", "--ifconfig", t.ClientAddr, t.ServerAddr,
			"--remote", serverAddr, fmt.Sprint(port), "--nobind", "--connect-retry", "1"}},
	} {
		cert, err := ca.Issue("vpn-" + end.name)
		if err != nil {
			return nil, err
		}
		args := append([]string{"--dev", "tun0", "--dev-type", "tun", "--proto", "udp", "--ca", ca.File,
			"--cert", cert.Cert, "--key", cert.Key, "--data-ciphers", "AES-256-GCM", "--verb", "3"}, end.args...)
		if *end.to, err = end.host.Start(ctx, "openvpn", args...); err != nil {
			return nil, err
		}
		if end.host == server {
			if err := server.WaitUDP(ctx, t.Server, port); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range []*Process{t.Server, t.Client} {
		if err := p.WaitOutput(ctx, "Initialization Sequence Completed"); err != nil {
			return nil, err
		}
	}
	return t, nil
}
