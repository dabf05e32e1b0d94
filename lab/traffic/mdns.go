// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"strings"
)

var _ = register(&Program{Name: "avahi", Category: "background", App: "mdns", OneLink: true, Clients: 4, Peers: 2, Version: "avahi-daemon --version",
	Needs: []Need{{"avahi-daemon", "avahi-daemon"}, {"avahi-browse", "avahi-utils"}, {"dbus-daemon", "dbus"}}, Start: startAvahi})

// avahi runs the daemon, and commands that need it. $1 is the commands.
const avahi = `mkdir -p /run/dbus
dbus-daemon --system --nofork --nopidfile > dbus.log 2>&1 &
until [ -S /run/dbus/system_bus_socket ]; do sleep .05; done
avahi-daemon --no-drop-root --no-chroot --no-rlimits -f avahi.conf > avahi.log 2>&1 & daemon=$!
until grep -q 'startup complete' avahi.log; do kill -0 $daemon || { cat avahi.log; exit 1; }; sleep .05; done
echo started
eval "$1"
kill $daemon; wait $daemon; exit 0`

// services are types of services that machines of a home or office announce.
var services = []string{"_http._tcp", "_ipp._tcp", "_ssh._tcp", "_smb._tcp", "_airplay._tcp", "_googlecast._tcp", "_spotify-connect._tcp", "_printer._tcp", "_sftp-ssh._tcp"}

// startAvahi: machines come and go. Each announces what it has and looks for what others have (RFC 6762, RFC 6763).
func startAvahi(ctx context.Context, r *Round) (Session, error) {
	machine := func(n *Node, d draw, name, work string) (string, error) {
		_, err := n.Write("avahi.conf", fmt.Sprintf("[server]\nhost-name=%s\nuse-ipv4=%s\nuse-ipv6=%s\nallow-interfaces=eth0\n[publish]\npublish-workstation=%s\n[wide-area]\nenable-wide-area=no\n",
			name, pick(d, "yes", "yes", "no"), "yes", pick(d, "yes", "no")))
		var commands strings.Builder
		for range d.IntN(4) {
			fmt.Fprintf(&commands, "avahi-publish -s '%s' %s %d 'model=%s' 'id=%s' > /dev/null & ", d.Text(d.Size(5, 30)), pick(d, services...), d.port(), d.Text(6), d.Text(d.Size(5, 100)))
		}
		return commands.String() + work, err
	}
	for i, n := range r.Servers {
		script, err := machine(n, r.draw, fmt.Sprintf("%s%d", pick(r.draw, "printer", "nas", "tv"), i), "sleep 1000")
		if err != nil {
			return nil, err
		}
		p, err := n.Start(ctx, "sh", "-c", avahi, "sh", script)
		if err != nil {
			return nil, err
		}
		if err := p.WaitOutput(ctx, "started"); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, c *Client) error {
		var work strings.Builder
		for range 1 + c.IntN(5) {
			fmt.Fprintf(&work, "sleep %.2f; %s || :; ", c.Between(.2, 5), pick(c.draw, "avahi-browse -t "+pick(c.draw, services...), "avahi-browse -tr "+pick(c.draw, services...),
				"avahi-browse -at", "avahi-browse -art", "avahi-resolve -n "+pick(c.draw, "printer0", "nas0", "nas1", "tv1")+".local", "avahi-resolve -a "+c.Server().String()))
		}
		script, err := machine(c.Node, c.draw, fmt.Sprintf("%s%d", pick(c.draw, "laptop", "phone", "desk"), c.IntN(1000)), work.String())
		if err != nil {
			return err
		}
		_, err = c.Run(ctx, "sh", "-c", avahi, "sh", script)
		return err
	}, nil
}
