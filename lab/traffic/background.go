// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"strings"
	"time"
)

var _ = register(
	&Program{Name: "dns", Category: "background", App: "dns", Version: "dig -v",
		Needs: []Need{{"dnsmasq", "dnsmasq-base"}, {"dig", "bind9-dnsutils"}}, Start: startDNS},
	&Program{Name: "ntp", Category: "background", App: "ntp", Version: "chronyd --version",
		Needs: []Need{{"chronyd", "chrony"}}, Start: startNTP},
	&Program{Name: "mqtt", Category: "background", App: "mqtt", Quick: true, Version: "mosquitto_pub --version",
		Needs: []Need{{"mosquitto", "mosquitto"}, {"mosquitto_pub", "mosquitto-clients"}}, Start: startMQTT},
	&Program{Name: "dot", Category: "background", App: "dot", Version: "kdig --version",
		Needs: []Need{{"unbound", "unbound"}, {"kdig", "knot-dnsutils"}}, Start: startDoT},
)

// startDNS: a client looks up names, as its programs need them.
func startDNS(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	p, err := s.Start(ctx, "dnsmasq", "--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file",
		fmt.Sprintf("--port=%d", port), "--address=/example/"+r.addr4().String(), "--address=/example/"+r.addr6().String(),
		"--txt-record=text.example,"+r.Text(150), "--mx-host=mail.example,mx.example,10", "--local=/test/")
	if err != nil {
		return nil, err
	}
	if err := s.WaitUDP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		for range 1 + c.IntN(6) {
			args := []string{"@" + c.Server().String(), "-p", fmt.Sprint(port), "+tries=1", "+time=2", pick(c.draw, "+edns", "+noedns", "+dnssec")}
			for range 1 + c.IntN(2) {
				args = append(args, c.name(), pick(c.draw, "A", "A", "AAAA", "AAAA", "MX", "TXT", "HTTPS"))
			}
			if _, err := c.Run(ctx, "dig", args...); err != nil {
				return err
			}
			if err := wait(ctx, time.Duration(c.Between(.01, .5)*float64(time.Second))); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// startDoT: a client looks up names over TLS (RFC 7858), several over one connection.
func startDoT(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port := r.Server(), r.Port()
	conf, err := s.Write("unbound.conf", fmt.Sprintf(`server:
  username: ""
  chroot: ""
  directory: "%[1]s"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  interface: 0.0.0.0@%[2]d
  interface: ::0@%[2]d
  tls-port: %[2]d
  tls-service-key: "%[3]s"
  tls-service-pem: "%[4]s"
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  module-config: "iterator"
  local-zone: "example." redirect
  local-data: "example. A %[5]s"
  local-data: "example. AAAA %[6]s"
  local-zone: "test." static
  local-zone: "net." static
  local-zone: "org." static
`, s.Dir, port, cert.Key, cert.Cert, r.addr4(), r.addr6()))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "unbound", "-d", "-c", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		args := []string{"@" + c.Server().String(), "-p", fmt.Sprint(port), "+tls-ca=" + ca, "+tls-hostname=" + s.Name, "+keepopen", pick(c.draw, "+padding", "+nopadding")}
		for range 1 + c.IntN(6) {
			args = append(args, c.name(), pick(c.draw, "A", "A", "AAAA", "HTTPS"))
		}
		_, err := c.Run(ctx, "kdig", args...)
		return err
	}, nil
}

// startNTP: a client asks for the time. Nobody sets a clock.
func startNTP(ctx context.Context, r *Round) (Session, error) {
	s, port := r.Server(), r.Port()
	conf, err := s.Write("chrony.conf", fmt.Sprintf("local stratum %d\nallow all\nport %d\ncmdport 0\nbindcmdaddress /\npidfile %s/pid\n", 1+r.IntN(4), port, s.Dir))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "chronyd", "-d", "-x", "-u", "root", "-f", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitUDP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		_, err := c.Run(ctx, "chronyd", "-Q", "-u", "root", "-t", "10",
			fmt.Sprintf("server %s port %d iburst maxsamples %d", c.Server(), port, 1+c.IntN(6)), "cmdport 0", "bindcmdaddress /", "pidfile "+c.Dir+"/pid")
		return err
	}, nil
}

// startMQTT: a sensor sends its readings, over TCP or TLS.
func startMQTT(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port, tls := r.Server(), r.Port(), r.Chance(.5)
	text := fmt.Sprintf("user root\nallow_anonymous true\nlistener %d\n", port)
	if tls {
		text += fmt.Sprintf("certfile %s\nkeyfile %s\n", cert.Cert, cert.Key)
	}
	conf, err := s.Write("mosquitto.conf", text)
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "mosquitto", "-c", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	return func(ctx context.Context, c *Client) error {
		args := []string{"-h", s.Name, "-p", fmt.Sprint(port), "-t", "lab/" + c.Text(8), "-q", pick(c.draw, "0", "1", "2"), "-k", "10"}
		if tls {
			args = append(args, "--cafile", ca)
		}
		if c.Chance(.3) {
			_, err := c.Run(ctx, "mosquitto_pub", append(args, "-m", c.Text(c.Size(10, 300)))...)
			return err
		}
		// One connection for several readings.
		var script strings.Builder
		for range 2 + c.IntN(8) {
			fmt.Fprintf(&script, "echo '{\"t\": %.2f, \"text\": \"%s\"}'; sleep %.2f; ", c.Between(10, 30), c.Text(c.IntN(80)), c.Between(.1, 3))
		}
		_, err := c.Run(ctx, "sh", append([]string{"-c", "(" + script.String() + ") | mosquitto_pub -l \"$@\"", "sh"}, args...)...)
		return err
	}, nil
}
