// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"strings"
)

var _ = register(&Program{Name: "rsyslog", Category: "background", App: "syslog", Version: "rsyslogd -v",
	Needs: []Need{{"rsyslogd", "rsyslog"}, {"/usr/lib/*/rsyslog/lmnsd_gtls.so", "rsyslog-gnutls"}, {"logger", "bsdutils"}}, Start: startRsyslog})

// rsyslogClient runs rsyslogd, and the commands that log, until these are through. $1 is the commands.
const rsyslogClient = `rm -f log; rsyslogd -n -i NONE -f client.conf & daemon=$!
until [ -S log ]; do kill -0 $daemon || exit 1; sleep .05; done
sh -c "$1"; sleep .3; kill $daemon; wait $daemon; exit 0`

// startRsyslog: machines send their logs to a server: over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425).
func startRsyslog(ctx context.Context, r *Round) (Session, error) {
	cert, ca, err := r.Certificate()
	if err != nil {
		return nil, err
	}
	s, port, transport := r.Server(), r.Port(), pick(r.draw, "udp", "tcp", "tls")
	driver := map[bool]string{false: "ptcp", true: "gtls"}[transport == "tls"]
	mode := map[bool]int{false: 0, true: 1}[transport == "tls"]
	conf, err := s.Write("server.conf", fmt.Sprintf(`global(workDirectory="%[1]s" defaultNetstreamDriverCAFile="%[2]s" defaultNetstreamDriverCertFile="%[3]s" defaultNetstreamDriverKeyFile="%[4]s")
module(load="imudp") input(type="imudp" port="%[5]d")
module(load="imtcp" StreamDriver.Name="%[6]s" StreamDriver.Mode="%[7]d" StreamDriver.AuthMode="anon") input(type="imtcp" port="%[5]d")
action(type="omfile" file="%[1]s/messages")
`, s.Dir, ca, cert.Cert, cert.Key, port, driver, mode))
	if err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, "rsyslogd", "-n", "-i", "NONE", "-f", conf)
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	template, framing := pick(r.draw, "RSYSLOG_SyslogProtocol23Format", "RSYSLOG_ForwardFormat", "RSYSLOG_TraditionalForwardFormat"), pick(r.draw, "octet-counted", "traditional")
	return func(ctx context.Context, c *Client) error {
		security := ""
		if transport == "tls" {
			security = fmt.Sprintf(` StreamDriver="gtls" StreamDriverMode="1" StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="%s"`, s.Name)
		}
		if _, err := c.Write("client.conf", fmt.Sprintf(`global(workDirectory="%[1]s" defaultNetstreamDriverCAFile="%[2]s")
module(load="imuxsock" SysSock.Use="off") input(type="imuxsock" Socket="%[1]s/log")
action(type="omfwd" target="%[3]s" port="%[4]d" protocol="%[5]s" template="%[6]s" TCP_Framing="%[7]s"%[8]s)
`, c.Dir, ca, s.Name, port, strings.Replace(transport, "tls", "tcp", 1), template, framing, security)); err != nil {
			return err
		}
		// Machines log now and then, and much at once when something happens.
		var commands strings.Builder
		for range 1 + c.IntN(8) {
			for range pick(c.draw, 1, 1, 1, 1+c.IntN(30)) {
				fmt.Fprintf(&commands, "logger -u log -t %s -p %s.%s -i '%s'; ", pick(c.draw, "sshd", "cron", "kernel", "app", "nginx"), pick(c.draw, "auth", "daemon", "user", "local0"),
					pick(c.draw, "info", "info", "notice", "warning", "err"), c.Text(c.Size(20, 400)))
			}
			fmt.Fprintf(&commands, "sleep %.2f; ", c.Between(.1, 4))
		}
		_, err := c.Run(ctx, "sh", "-c", rsyslogClient, "sh", commands.String())
		return err
	}, nil
}
