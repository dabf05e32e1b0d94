// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(&Program{Name: "qbittorrent", Category: "torrent", App: "bittorrent", Peers: 2, Version: "qbittorrent-nox --version",
	Needs: []Need{{"qbittorrent-nox", "qbittorrent-nox"}, {"transmission-create", "transmission-cli"}}, Start: startQBittorrent})

const qBittorrentConfig = `[LegalNotice]
Accepted=true
[BitTorrent]
Session\Encryption=1
Session\BTProtocol=%s
Session\DHTEnabled=true
Session\LSDEnabled=false
Session\Port=%d
Session\DefaultSavePath=%s
[Preferences]
WebUI\Address=127.0.0.1
WebUI\Port=%d
`

// startQBittorrent: peers that insist on encryption, over TCP, uTP or both. They find each
// other by the tracker, the DHT and each other.
func startQBittorrent(ctx context.Context, r *Round) (Session, error) {
	protocol, node := pick(r.draw, "Both", "UTP", "TCP"), r.Port()
	first := true
	start := func(ctx context.Context, n *Node, d draw, torrent, dir string) (*lab.Process, error) {
		port := node // of the first peer
		if !first {
			port = n.Port(d)
		}
		profile := fmt.Sprintf("profile%d", d.Uint32())
		if _, err := n.Write(profile+"/qBittorrent/config/qBittorrent.conf", fmt.Sprintf(qBittorrentConfig, protocol, port, dir, 1024+d.IntN(30000))); err != nil {
			return nil, err
		}
		p, err := n.Start(ctx, "qbittorrent-nox", "--profile="+filepath.Join(n.Dir, profile), "--save-path="+dir, "--skip-dialog=true", torrent)
		if err != nil || !first {
			return p, err
		}
		first = false
		return p, n.WaitUDP(ctx, p, port)
	}
	s, err := r.Swarm(ctx, node, start)
	if err != nil {
		return nil, err
	}
	return s.session(start), nil
}
