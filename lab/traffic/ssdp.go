// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
)

var _ = register(&Program{Name: "upnp", Category: "background", App: "ssdp", OneLink: true, Peers: 3, Version: "minidlnad -V",
	Needs: []Need{{"minidlnad", "minidlna"}, {"gssdp-discover", "gssdp-tools"}}, Start: startUPnP})

// startUPnP: media servers announce themselves, and players look for them (UPnP Device Architecture 2.0, section 1). Both
// programs speak IPv4 only.
func startUPnP(ctx context.Context, r *Round) (Session, error) {
	for _, n := range r.Servers {
		port := n.Port(r.draw)
		conf, err := n.Write("minidlna.conf", fmt.Sprintf("port=%d\nnetwork_interface=eth0\nmedia_dir=%[2]s/media\ndb_dir=%[2]s/db\nlog_dir=%[2]s\nfriendly_name=%[3]s\ninotify=no\nnotify_interval=%[4]d\n",
			port, n.Dir, r.Text(r.Size(4, 30)), 5+r.IntN(60)))
		if err != nil {
			return nil, err
		}
		if _, err := n.Write("media/note.txt", ""); err != nil {
			return nil, err
		}
		p, err := n.Start(ctx, "minidlnad", "-S", "-f", conf, "-P", n.Dir+"/pid")
		if err != nil {
			return nil, err
		}
		if err := n.WaitTCP(ctx, p, port); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, c *Client) error {
		target := pick(c.draw, "ssdp:all", "upnp:rootdevice", "urn:schemas-upnp-org:device:MediaServer:1", "urn:schemas-upnp-org:service:ContentDirectory:1",
			"urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:MediaRenderer:1")
		_, err := c.Run(ctx, "gssdp-discover", "-i", "eth0", "-t", target, "-n", fmt.Sprint(2+c.IntN(8)), "-r", fmt.Sprint(1+c.IntN(5)))
		return err
	}, nil
}
