// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/dpclass/dpclass/lab"
)

// charonDevice is the device that charon makes; it finds it by this name only.
const charonDevice = "ipsec0"

const pluginDir = "/usr/lib/ipsec/plugins/libstrongswan-"

var needIKE = []Need{{"charon-systemd", "charon-systemd"}, {"swanctl", "strongswan-swanctl"}, {pluginDir + "kernel-libipsec.so", "libcharon-extra-plugins"},
	{pluginDir + "openssl.so", "libstrongswan-standard-plugins"}, {"/dev/net/tun", "kmod"}}

// charonConf configures charon. The packets of ESP go through a tun device and charon, not
// through the kernel, which may have no ESP; so they are always in UDP.
const charonConf = `charon-systemd {
  load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints revocation kdf hmac gcm vici kernel-libipsec kernel-netlink socket-default
  routing_table_prio = 40000 # after the lab's own routes
  install_virtual_ip = no
  port = %d
  port_nat_t = %d
  plugins {
    vici {
      socket = unix://%s/vici
    }
  }
  filelog {
    log {
      path = stderr
    }
  }
}
swanctl {
  load = random openssl pem pkcs1 pkcs8 x509 pubkey
}
`

// The connection of one client as the gateway sees it, its addresses, and the connection
// as the client sees it.
const (
	gatewayIKE = `connections {
  %[1]s {
    version = 2
    encap = yes
    pools = four-%[1]s, six-%[1]s
    local {
      auth = pubkey
      certs = lab.pem
      id = %[2]s
    }
    remote {
      auth = %[3]s
      id = %[1]s
    }
    proposals = %[6]s
    children {
      lab {
        esp_proposals = %[7]s
        local_ts = 0.0.0.0/0, ::/0
      }
    }
  }
}
pools {
  four-%[1]s {
    addrs = %[4]s/32
  }
  six-%[1]s {
    addrs = %[5]s/128
  }
}
`
	clientIKE = `connections {
  lab {
    version = 2
    encap = yes
    vips = %[1]s, %[2]s
    remote_addrs = %[3]s
    remote_port = %[4]d
    proposals = %[5]s
    local {
      auth = %[6]s
      certs = lab.pem
      id = %[7]s
    }
    remote {
      auth = pubkey
      id = %[8]s
    }
    children {
      lab {
        remote_ts = 0.0.0.0/0, ::/0
        esp_proposals = %[9]s
      }
    }
  }
}
`
	secretIKE = `secrets {
  ike {
    secret = correct-horse
  }
}
`
)

// ike opens a tunnel of strongSwan: IKEv2 (RFC 7296) with NAT traversal (RFC 3948). A
// client proves who it is by a certificate or a shared secret.
func ike(ctx context.Context, r *Round, i inside) error {
	ca, err := r.CA()
	if err != nil {
		return err
	}
	// The server's port of all packets that follow IKE_SA_INIT; with another port than 500,
	// of that too.
	first, then := 500, 4500
	if r.Chance(.5) {
		first = r.gateway.Port(r.draw)
		then = first
	}
	secret := r.Chance(.3)
	start := func(n *Node, name, conf string, port, natPort int) (*lab.Process, error) {
		cert, err := ca.Issue(name)
		if err != nil {
			return nil, err
		}
		for dir, file := range map[string]string{"x509ca": ca.File, "x509": cert.Cert, "private": cert.Key} {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if _, err := n.Write(filepath.Join("swanctl", dir, "lab.pem"), string(text)); err != nil {
				return nil, err
			}
		}
		if secret {
			conf += secretIKE
		}
		for file, text := range map[string]string{"strongswan.conf": fmt.Sprintf(charonConf, port, natPort, n.Dir), "swanctl/swanctl.conf": conf} {
			if _, err := n.Write(file, text); err != nil {
				return nil, err
			}
		}
		p, err := n.startIKE(ctx, "charon-systemd")
		if err != nil {
			return nil, err
		}
		if err := n.swanctl(ctx, p, "--load-all", "--noprompt"); err != nil {
			return nil, err
		}
		return p, batch(ctx, n.Host, "link set "+charonDevice+" mtu 1400")
	}
	auth := "pubkey"
	if secret {
		auth = "psk"
	}
	name := func(c *Client) string { return fmt.Sprintf("client%d", c.Number) }
	proposal := pick(r.draw, "aes128gcm16-prfsha256-ecp256", "aes256gcm16-prfsha384-ecp384", "aes256-sha256-modp2048", "chacha20poly1305-prfsha256-x25519")
	esp := pick(r.draw, "aes128gcm16", "aes256gcm16", "aes256-sha256", "chacha20poly1305")
	var all strings.Builder
	for _, c := range r.Clients {
		fmt.Fprintf(&all, gatewayIKE, name(c), r.gateway.Name, auth, c.Addr4, c.Addr6, proposal, esp)
	}
	listen := first
	if first == then {
		listen = r.gateway.Port(r.draw) // for what nobody sends
	}
	gateway, err := start(r.gateway, r.gateway.Name, all.String(), listen, then)
	if err != nil {
		return err
	}
	if err := r.gateway.WaitUDP(ctx, gateway, then); err != nil {
		return err
	}
	if err := batch(ctx, r.gateway.Host, "addr add "+netip.PrefixFrom(i.gateway4, 24).String()+" dev "+charonDevice,
		"addr add "+netip.PrefixFrom(i.gateway6, 64).String()+" dev "+charonDevice+" nodad"); err != nil {
		return err
	}
	for _, c := range r.Clients {
		// What ESP leaves room for, with the longest padding and in IPv6.
		c.stack.mss = min(c.stack.mss, 1340)
		conf := fmt.Sprintf(clientIKE, c.Addr4, c.Addr6, c.outside(), first, proposal, auth, name(c), r.gateway.Name, esp)
		p, err := start(c.Node, name(c), conf, 0, 0) // any ports, as from behind a NAT
		if err != nil {
			return err
		}
		if err := batch(ctx, c.Host, fmt.Sprintf("addr add %s/24 dev %s", c.Addr4, charonDevice), fmt.Sprintf("addr add %s/64 dev %s nodad", c.Addr6, charonDevice)); err != nil {
			return err
		}
		if err := c.swanctl(ctx, p, "--initiate", "--child", "lab"); err != nil {
			return fmt.Errorf("%w; the gateway: %s", err, gateway.Output())
		}
	}
	return nil
}

// startIKE starts a program of strongSwan with the node's own configuration.
func (n *Node) startIKE(ctx context.Context, name string, args ...string) (*lab.Process, error) {
	cmd, err := n.Command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "STRONGSWAN_CONF="+n.Dir+"/strongswan.conf", "SWANCTL_DIR="+n.Dir+"/swanctl")
	return n.StartCommand(cmd)
}

// swanctl gives charon a command as soon as it takes some.
func (n *Node) swanctl(ctx context.Context, charon *lab.Process, args ...string) error {
	if err := lab.Until(ctx, "charon", func() (bool, error) {
		select {
		case <-charon.Done():
			return false, fmt.Errorf("charon ended: %s", charon.Output())
		default:
		}
		_, err := os.Stat(filepath.Join(n.Dir, "vici"))
		return err == nil, nil
	}); err != nil {
		return err
	}
	p, err := n.startIKE(ctx, "swanctl", append(args, "--uri", "unix://"+n.Dir+"/vici")...)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("swanctl %s: %w: %s; charon: %s", strings.Join(args, " "), err, p.Output(), charon.Output())
	}
	return nil
}
