// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/lab"
)

// tunnelCategory is the category of a tunnel's own packets.
const tunnelCategory = "vpn-tunnel"

// tunnelDevice is the device of most tunnels.
const tunnelDevice = "tun0"

// tunnel is a VPN between the clients and a gateway on the far side. Every program can run
// inside it.
type tunnel struct {
	name    string
	app     string
	needs   []Need
	version string

	device string // of a client, that leads into the tunnel

	// open opens the tunnel. The clients and the gateway then have the device, with the
	// addresses inside.
	open func(ctx context.Context, r *Round, inside inside) error

	slow bool // takes long to open: not part of a quick run
	// streams is for what carries TCP connections, not packets. It names the programs that
	// need nothing else and that people use in it; nil: a tunnel of packets, for all
	// programs. open then gets no addresses, and no packets are seen inside.
	streams []string
	relays  int // hosts on the far side besides the gateway
}

// inside holds the addresses in a tunnel.
type inside struct {
	prefix4, prefix6   netip.Prefix
	gateway4, gateway6 netip.Addr
}

var needTUN = Need{"/dev/net/tun", "kmod"}

var tunnels = []*tunnel{
	{name: "openvpn-udp", app: "openvpn", needs: []Need{{"openvpn", "openvpn"}, needTUN}, version: "openvpn --version", device: tunnelDevice, open: openVPN("udp", nil)},
	{name: "openvpn-tcp", app: "openvpn", needs: []Need{{"openvpn", "openvpn"}, needTUN}, version: "openvpn --version", device: tunnelDevice, open: openVPN("tcp", nil)},
	{name: "wireguard", app: "wireguard", needs: []Need{{"wireguard-go", "wireguard-go"}, {"wg", "wireguard-tools"}, needTUN},
		version: "wireguard-go --version", device: tunnelDevice, open: wireGuard},
	{name: "openconnect", app: "anyconnect", needs: []Need{{"ocserv", "ocserv"}, {"ocpasswd", "ocserv"}, {"openconnect", "openconnect"}, needTUN},
		version: "openconnect --version", device: tunnelDevice, open: openConnect},
	{name: "ikev2", app: "ipsec", needs: needIKE, version: "swanctl --version", device: charonDevice, open: ike},
	{name: "stunnel", app: "stunnel", needs: []Need{{"openvpn", "openvpn"}, {"stunnel4", "stunnel4"}, needTUN}, version: "stunnel4 -version", device: tunnelDevice,
		open: openVPN("tcp", stunnel)},
	{name: "shadowsocks", app: "shadowsocks", needs: []Need{{"openvpn", "openvpn"}, {"ss-server", "shadowsocks-libev"}, {"ss-tunnel", "shadowsocks-libev"}, needTUN},
		version: "ss-tunnel -h", device: tunnelDevice, open: openVPN("tcp", shadowsocks)},
	{name: "tor", app: "tor", needs: needTor, version: "tor --version", open: tor, slow: true, streams: throughTor, relays: torRelays - 1},
}

// carries reports whether a program can run inside the tunnel.
func (t *tunnel) carries(p *Program) bool {
	return t.streams == nil || slices.Contains(t.streams, p.Name)
}

// start opens the tunnel, and routes all traffic of the clients into it.
func (t *tunnel) start(ctx context.Context, r *Round) error {
	if t.streams != nil {
		return t.open(ctx, r, inside{})
	}
	i := inside{}
	i.prefix4 = netip.PrefixFrom(r.addr4(), 24).Masked()
	i.prefix6 = netip.PrefixFrom(r.addr6(), 64).Masked()
	i.gateway4, i.gateway6 = i.prefix4.Addr().Next(), i.prefix6.Addr().Next()
	for n, c := range r.Clients {
		a4, a6 := i.prefix4.Addr().As4(), i.prefix6.Addr().As16()
		a4[3], a6[15] = byte(10+40*n+r.IntN(40)), byte(10+40*n+r.IntN(40))
		c.Addr4, c.Addr6 = netip.AddrFrom4(a4), netip.AddrFrom16(a6)
	}
	if err := r.gateway.Forward(); err != nil {
		return err
	}
	if err := t.open(ctx, r, i); err != nil {
		return err
	}
	gateway := r.gateway
	for _, c := range r.Clients {
		if err := c.SetOffload(t.device, false); err != nil {
			return err
		}
		if err := batch(ctx, c.Host,
			fmt.Sprintf("route add %s via %s dev eth0 src %s advmss %d", gateway.stack.addr4, gateway4, c.stack.addr4, c.stack.mss),
			fmt.Sprintf("route add %s via %s dev eth0 src %s advmss %d", gateway.stack.addr6, gateway6, c.stack.addr6, c.stack.mss-20),
			fmt.Sprintf("route replace default dev %s src %s advmss %d", t.device, c.Addr4, c.stack.mss),
			"route del ::/0 dev eth0",
		); err != nil {
			return err
		}
		// The kernel refuses an address that OpenVPN has just added until it has looked for duplicates.
		var refused error
		if err := lab.Until(ctx, "an IPv6 route into the tunnel", func() (bool, error) {
			refused = batch(ctx, c.Host, fmt.Sprintf("route add ::/0 dev %s src %s advmss %d", t.device, c.Addr6, c.stack.mss-20))
			return refused == nil, nil
		}); err != nil {
			return errors.Join(err, refused)
		}
		if err := c.Sysctl("net/ipv6/conf/"+t.device+"/hop_limit", fmt.Sprint(c.stack.ttl)); err != nil {
			return err
		}
		if err := batch(ctx, r.net.far,
			fmt.Sprintf("route add %s via %s dev %s onlink", c.Addr4, gateway.stack.addr4, gateway.link),
			fmt.Sprintf("route add %s via %s dev %s onlink", c.Addr6, gateway.stack.addr6, gateway.link)); err != nil {
			return err
		}
	}
	return nil
}

// A wrap carries TCP connections from the clients to the gateway in another protocol. It
// starts its programs on all of them. Then, what connects to the port local of a client's
// loopback device reaches the port inner of the gateway's.
type wrap func(ctx context.Context, r *Round, local, inner int) error

// openVPN returns the opener of an OpenVPN tunnel over UDP or TCP. With a wrap, only its
// packets are on the wire.
func openVPN(proto string, wrap wrap) func(ctx context.Context, r *Round, i inside) error {
	return func(ctx context.Context, r *Round, i inside) error {
		ca, err := r.CA()
		if err != nil {
			return err
		}
		port, cipher := r.gateway.Port(r.draw), pick(r.draw, "AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
		// Most services protect the handshake with a key of their own.
		var protect []string
		if option := pick(r.draw, "", "--tls-auth", "--tls-crypt"); option != "" {
			key := filepath.Join(r.Dir, "openvpn.key")
			if _, err := r.gateway.Run(ctx, "openvpn", "--genkey", "secret", key); err != nil {
				return err
			}
			protect = []string{option, key}
		}
		start := func(n *Node, name string, args ...string) (*lab.Process, error) {
			cert, err := ca.Issue(name)
			if err != nil {
				return nil, err
			}
			return n.Start(ctx, "openvpn", append([]string{"--dev", tunnelDevice, "--dev-type", "tun", "--ca", ca.File, "--cert", cert.Cert,
				"--key", cert.Key, "--data-ciphers", cipher, "--verb", "3"}, append(protect, args...)...)...)
		}
		if wrap != nil {
			port = innerPort
			if err := wrap(ctx, r, localPort, innerPort); err != nil {
				return err
			}
		}
		var processes []*lab.Process
		for n, c := range r.Clients {
			// What the server tells the client, by the name in its certificate.
			if _, err := r.gateway.Write(fmt.Sprintf("ccd/client%d", n), fmt.Sprintf("ifconfig-push %s 255.255.255.0\nifconfig-ipv6-push %s/64 %s\n",
				c.Addr4, c.Addr6, i.gateway6)); err != nil {
				return err
			}
		}
		server := map[string]string{"udp": "udp6", "tcp": "tcp6-server"}[proto]
		p, err := start(r.gateway, "gateway", "--mode", "server", "--tls-server", "--dh", "none", "--topology", "subnet", "--push", "topology subnet",
			"--proto", server, "--lport", fmt.Sprint(port), "--client-config-dir", "ccd", "--ifconfig", i.gateway4.String(), "255.255.255.0",
			"--ifconfig-ipv6", i.gateway6.String()+"/64", i.gateway6.Next().String(), "--keepalive", "5", "30")
		if err != nil {
			return err
		}
		wait := r.gateway.WaitUDP
		if proto == "tcp" {
			wait = r.gateway.WaitTCP
		}
		if err := wait(ctx, p, port); err != nil {
			return err
		}
		for n, c := range r.Clients {
			client := map[string]string{"udp4": "udp4", "udp6": "udp6", "tcp4": "tcp4-client", "tcp6": "tcp6-client"}[proto+map[bool]string{false: "4", true: "6"}[c.six]]
			remote := netip.AddrPortFrom(c.outside(), uint16(port))
			if wrap != nil {
				client, remote = "tcp4-client", netip.AddrPortFrom(loopback, localPort)
			}
			p, err := start(c.Node, fmt.Sprintf("client%d", n), "--tls-client", "--pull", "--proto", client, "--remote", remote.Addr().String(), fmt.Sprint(remote.Port()),
				"--nobind", "--connect-retry", "1")
			if err != nil {
				return err
			}
			processes = append(processes, p)
		}
		for _, p := range processes {
			if err := p.WaitOutput(ctx, "Initialization Sequence Completed"); err != nil {
				return err
			}
		}
		return nil
	}
}

// Ports on loopback devices, for what is carried in another protocol.
const (
	localPort = 1001
	innerPort = 1002
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// outside returns the address of the gateway that a client uses.
func (c *Client) outside() netip.Addr {
	if c.six {
		return c.Round.gateway.stack.addr6
	}
	return c.Round.gateway.stack.addr4
}

// stunnel carries TCP in TLS.
func stunnel(ctx context.Context, r *Round, local, inner int) error {
	ca, err := r.CA()
	if err != nil {
		return err
	}
	cert, err := ca.Issue(r.gateway.Name)
	if err != nil {
		return err
	}
	port := r.gateway.Port(r.draw)
	start := func(n *Node, conf string, port int) error {
		file, err := n.Write("stunnel.conf", "foreground = yes\npid =\n[lab]\n"+conf)
		if err != nil {
			return err
		}
		p, err := n.Start(ctx, "stunnel4", file)
		if err != nil {
			return err
		}
		return n.WaitTCP(ctx, p, port)
	}
	if err := start(r.gateway, fmt.Sprintf("accept = :::%d\nconnect = 127.0.0.1:%d\ncert = %s\nkey = %s\n", port, inner, cert.Cert, cert.Key), port); err != nil {
		return err
	}
	for _, c := range r.Clients {
		if err := start(c.Node, fmt.Sprintf("client = yes\naccept = 127.0.0.1:%d\nconnect = %s:%d\nsni = %s\n", local, c.outside(), port, r.gateway.Name), local); err != nil {
			return err
		}
	}
	return nil
}

// shadowsocks carries TCP in Shadowsocks.
func shadowsocks(ctx context.Context, r *Round, local, inner int) error {
	port, common := r.gateway.Port(r.draw), []string{"-k", "correct-horse", "-m", pick(r.draw, "aes-256-gcm", "aes-128-gcm", "chacha20-ietf-poly1305")}
	p, err := r.gateway.Start(ctx, "ss-server", append([]string{"-s", "::", "-s", "0.0.0.0", "-p", fmt.Sprint(port)}, common...)...)
	if err != nil {
		return err
	}
	if err := r.gateway.WaitTCP(ctx, p, port); err != nil {
		return err
	}
	for _, c := range r.Clients {
		p, err := c.Start(ctx, "ss-tunnel", append([]string{"-s", c.outside().String(), "-p", fmt.Sprint(port), "-b", "127.0.0.1", "-l", fmt.Sprint(local),
			"-L", fmt.Sprintf("127.0.0.1:%d", inner)}, common...)...)
		if err != nil {
			return err
		}
		if err := c.WaitTCP(ctx, p, local); err != nil {
			return err
		}
	}
	return nil
}

// wireGuardScript runs wireguard-go and configures it. Both find its socket in their own
// /run.
const wireGuardScript = `wireguard-go -f tun0 & daemon=$!
until [ -S /run/wireguard/tun0.sock ]; do kill -0 $daemon || exit 1; sleep .05; done
wg setconf tun0 wg.conf && ip link set tun0 up mtu 1420 && echo configured
wait $daemon`

// wireGuard opens a tunnel of wireguard-go, which needs nothing of the kernel but a tun
// device.
func wireGuard(ctx context.Context, r *Round, i inside) error {
	port := r.gateway.Port(r.draw)
	key := func() (private, public string, err error) {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return "", "", err
		}
		return base64.StdEncoding.EncodeToString(k.Bytes()), base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()), nil
	}
	start := func(n *Node, conf string, addresses ...string) error {
		if _, err := n.Write("wg.conf", conf); err != nil {
			return err
		}
		p, err := n.Start(ctx, "sh", "-c", wireGuardScript)
		if err != nil {
			return err
		}
		if err := p.WaitOutput(ctx, "configured"); err != nil {
			return err
		}
		for n, address := range addresses {
			addresses[n] = "addr add " + address + " dev " + tunnelDevice
		}
		return batch(ctx, n.Host, addresses...)
	}
	gatewayKey, gatewayPublic, err := key()
	if err != nil {
		return err
	}
	var gateway strings.Builder
	fmt.Fprintf(&gateway, "[Interface]\nPrivateKey = %s\nListenPort = %d\n", gatewayKey, port)
	private := make([]string, len(r.Clients))
	for n, c := range r.Clients {
		own, public, err := key()
		if err != nil {
			return err
		}
		private[n] = own
		fmt.Fprintf(&gateway, "[Peer]\nPublicKey = %s\nAllowedIPs = %s/32, %s/128\n", public, c.Addr4, c.Addr6)
	}
	if err := start(r.gateway, gateway.String(), netip.PrefixFrom(i.gateway4, 24).String(), netip.PrefixFrom(i.gateway6, 64).String()); err != nil {
		return err
	}
	for n, c := range r.Clients {
		if err := start(c.Node, fmt.Sprintf("[Interface]\nPrivateKey = %s\n[Peer]\nPublicKey = %s\nAllowedIPs = 0.0.0.0/0, ::/0\n"+
			"Endpoint = %s\nPersistentKeepalive = %d\n", private[n], gatewayPublic, netip.AddrPortFrom(c.outside(), uint16(port)), 10+r.IntN(20)),
			c.Addr4.String()+"/24", c.Addr6.String()+"/64"); err != nil {
			return err
		}
	}
	return nil
}

const ocservConf = `auth = "plain[passwd=%[1]s/passwd]"
tcp-port = %[2]d
udp-port = %[2]d
socket-file = %[1]s/socket
pid-file = %[1]s/pid
run-as-user = nobody
run-as-group = nogroup
server-cert = %[3]s
server-key = %[4]s
isolate-workers = false
keepalive = 30
dpd = 20
try-mtu-discovery = false
device = vpns
ipv4-network = %[5]s
ipv6-network = %[6]s
ipv6-subnet-prefix = 128
ping-leases = false
route = default
cisco-client-compat = true
dtls-legacy = true
config-per-user = %[1]s/users
`

// openConnect opens a tunnel of ocserv and openconnect, over TLS and, where the server
// and client can, DTLS.
func openConnect(ctx context.Context, r *Round, i inside) error {
	ca, err := r.CA()
	if err != nil {
		return err
	}
	gateway := r.gateway
	cert, err := ca.Issue(gateway.Name)
	if err != nil {
		return err
	}
	port := gateway.Port(r.draw)
	conf, err := gateway.Write("ocserv.conf", fmt.Sprintf(ocservConf, gateway.Dir, port, cert.Cert, cert.Key, i.prefix4, i.prefix6))
	if err != nil {
		return err
	}
	const password = "correct-horse"
	user := func(c *Client) string { return fmt.Sprintf("user%d", c.Number) }
	for _, c := range r.Clients {
		if _, err := gateway.RunInput(ctx, password+"\n"+password+"\n", "ocpasswd", "-c", gateway.Dir+"/passwd", user(c)); err != nil {
			return err
		}
		if _, err := gateway.Write("users/"+user(c), fmt.Sprintf("explicit-ipv4 = %s\nexplicit-ipv6 = %s\n", c.Addr4, c.Addr6)); err != nil {
			return err
		}
	}
	p, err := gateway.Start(ctx, "ocserv", "--foreground", "--config", conf)
	if err != nil {
		return err
	}
	if err := gateway.WaitTCP(ctx, p, port); err != nil {
		return err
	}
	for _, c := range r.Clients {
		script, err := c.Write("vpnc-script", "#!/bin/sh\n[ \"$reason\" != connect ] || ip link set \"$TUNDEV\" up mtu \"${INTERNAL_IP4_MTU:-1400}\"\n")
		if err != nil {
			return err
		}
		cmd, err := c.Command(ctx, "openconnect", "--non-inter", "--passwd-on-stdin", "--user="+user(c), "--cafile="+ca.File, "--interface="+tunnelDevice,
			"--script=sh "+script, fmt.Sprintf("https://%s:%d", gateway.Name, port))
		if err != nil {
			return err
		}
		cmd.Stdin = strings.NewReader(password + "\n")
		client, err := c.StartCommand(cmd)
		if err != nil {
			return err
		}
		if err := lab.Until(ctx, "the tunnel of openconnect", func() (bool, error) {
			select {
			case <-client.Done():
				return false, fmt.Errorf("openconnect ended: %s; ocserv: %s", client.Output(), p.Output())
			default:
			}
			link, err := c.Link(tunnelDevice)
			return err == nil && link.Attrs().Flags&net.FlagUp != 0, nil
		}); err != nil {
			return err
		}
		if err := batch(ctx, c.Host, fmt.Sprintf("addr add %s/24 dev %s", c.Addr4, tunnelDevice), fmt.Sprintf("addr add %s/64 dev %s nodad", c.Addr6, tunnelDevice)); err != nil {
			return err
		}
	}
	return nil
}
