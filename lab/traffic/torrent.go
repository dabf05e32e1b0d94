// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/lab"
)

var _ = register(
	&Program{Name: "transmission", Category: "torrent", App: "bittorrent", Peers: 3, Version: "transmission-cli -V",
		Needs: []Need{{"transmission-cli", "transmission-cli"}, {"transmission-create", "transmission-cli"}}, Start: startTransmission},
	&Program{Name: "aria2", Category: "torrent", App: "bittorrent", Quick: true, Peers: 3, Version: "aria2c --version",
		Needs: []Need{{"aria2c", "aria2"}, {"transmission-create", "transmission-cli"}}, Start: startAria2},
)

// tracker is an HTTP tracker (BEP 3, BEP 7, BEP 23). It knows who announced itself.
type tracker struct {
	mu    sync.Mutex
	peers map[netip.AddrPort]bool
}

func (t *tracker) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	from, err := netip.ParseAddrPort(request.RemoteAddr)
	port, portErr := strconv.ParseUint(request.URL.Query().Get("port"), 10, 16)
	if err != nil || portErr != nil {
		http.Error(w, "no port", http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers[netip.AddrPortFrom(from.Addr().Unmap(), uint16(port))] = true
	var four, six []byte
	for peer := range t.peers {
		compact := append(peer.Addr().AsSlice(), byte(peer.Port()>>8), byte(peer.Port()))
		if peer.Addr().Is4() {
			four = append(four, compact...)
		} else {
			six = append(six, compact...)
		}
	}
	_, _ = fmt.Fprintf(w, "d8:intervali20e5:peers%d:%s6:peers6%d:%se", len(four), four, len(six), six)
}

// swarm is a set of torrents whose files the servers have.
type swarm struct {
	torrents []string // paths
	size     map[string]int64
}

// Swarm starts a tracker on the first server, and makes torrents whose files all servers
// have. start starts a peer of a torrent with its files in a directory. If node is not 0,
// the torrents name that port of the first server as a node of the DHT (BEP 5), and some
// have no tracker.
func (r *Round) Swarm(ctx context.Context, node int, start func(ctx context.Context, n *Node, d draw, torrent, dir string) (*lab.Process, error)) (*swarm, error) {
	s, port := r.Server(), r.Port()
	listener, err := s.Listen(ctx, fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: &tracker{peers: map[netip.AddrPort]bool{}}}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	swarm := &swarm{size: map[string]int64{}}
	for i := range 2 {
		name := fmt.Sprintf("%s-%d.iso", pick(r.draw, "distribution", "film", "album"), i)
		size := int64(r.Size(1_000_000, 12_000_000))
		if err := lab.WriteFiles(filepath.Join(s.Dir, "seed"), map[string]int64{name: size}); err != nil {
			return nil, err
		}
		torrent := filepath.Join(r.Dir, name+".torrent")
		create := []string{"-o", torrent}
		if node == 0 || r.Chance(.7) {
			create = append(create, "-t", fmt.Sprintf("http://%s:%d/announce", s.Name, port))
		}
		if _, err := s.Run(ctx, "transmission-create", append(create, filepath.Join(s.Dir, "seed", name))...); err != nil {
			return nil, err
		}
		if node != 0 {
			if err := nameNode(torrent, s.Name, node); err != nil {
				return nil, err
			}
		}
		swarm.torrents = append(swarm.torrents, torrent)
		swarm.size[torrent] = size
		for _, n := range r.Servers {
			dir := filepath.Join(n.Dir, "seed")
			if n != s {
				if _, err := n.Run(ctx, "cp", "-r", filepath.Join(s.Dir, "seed"), n.Dir); err != nil {
					return nil, err
				}
			}
			if _, err := start(ctx, n, r.draw, torrent, dir); err != nil {
				return nil, err
			}
		}
	}
	return swarm, nil
}

// nameNode adds a node of the DHT to a torrent. The key is the last one: transmission-create
// writes none that sorts after it.
func nameNode(torrent, host string, port int) error {
	data, err := os.ReadFile(torrent)
	if err != nil {
		return err
	}
	data = fmt.Appendf(data[:len(data)-1], "5:nodesll%d:%si%deeee", len(host), host, port)
	return os.WriteFile(torrent, data, 0o644)
}

// session returns the session of a peer that downloads a torrent, and stays for a while.
func (s *swarm) session(start func(ctx context.Context, n *Node, d draw, torrent, dir string) (*lab.Process, error)) Session {
	return func(ctx context.Context, c *Client) error {
		torrent := pick(c.draw, s.torrents...)
		dir := filepath.Join(c.Dir, fmt.Sprintf("get%d", c.Uint32()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		p, err := start(ctx, c.Node, c.draw, torrent, dir)
		if err != nil {
			return err
		}
		err = lab.Until(ctx, "the download of "+filepath.Base(torrent), func() (bool, error) {
			select {
			case <-p.Done():
				return false, fmt.Errorf("the program ended: %s", p.Output())
			default:
			}
			return written(dir) >= s.size[torrent], nil
		})
		if err != nil {
			return err
		}
		_ = c.Think(ctx, 5*time.Second)
		_ = p.Stop() // it would seed for ever
		return nil
	}
}

// written returns how many bytes of disk the files in a directory use.
func written(dir string) (bytes int64) {
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		var stat unix.Stat_t // the files have holes
		if unix.Stat(filepath.Join(dir, file.Name()), &stat) == nil && !strings.HasSuffix(file.Name(), ".aria2") {
			bytes += stat.Blocks * 512
		}
	}
	return bytes
}

// startTransmission: peers over TCP and uTP, with encryption in most cases.
func startTransmission(ctx context.Context, r *Round) (Session, error) {
	encryption, utp := pick(r.draw, "-er", "-ep", "-ep", "-et"), r.Chance(.7)
	start := func(ctx context.Context, n *Node, d draw, torrent, dir string) (*lab.Process, error) {
		conf := fmt.Sprintf("transmission%d", d.Uint32())
		if _, err := n.Write(conf+"/settings.json", fmt.Sprintf(`{"utp-enabled": %v, "lpd-enabled": false, "dht-enabled": true, "preallocation": 0}`, utp)); err != nil {
			return nil, err
		}
		cmd, err := n.Command(ctx, "transmission-cli", encryption, "-M", "-g", filepath.Join(n.Dir, conf), "-w", dir, "-p", fmt.Sprint(n.Port(d)), torrent)
		if err != nil {
			return nil, err
		}
		cmd.Stdout = io.Discard // it prints its progress five times a second
		return n.StartCommand(cmd)
	}
	s, err := r.Swarm(ctx, 0, start)
	if err != nil {
		return nil, err
	}
	return s.session(start), nil
}

// startAria2: peers over TCP, with and without encryption.
func startAria2(ctx context.Context, r *Round) (Session, error) {
	crypto := pick(r.draw, []string{"--bt-require-crypto=true"}, []string{"--bt-require-crypto=true", "--bt-min-crypto-level=arc4"}, []string{"--bt-min-crypto-level=plain"})
	start := func(ctx context.Context, n *Node, d draw, torrent, dir string) (*lab.Process, error) {
		number := n.Port(d)
		for number < 1024 { // aria2 does not take them
			number = n.Port(d)
		}
		port := fmt.Sprint(number)
		return n.Start(ctx, "aria2c", append([]string{"--no-conf", "--bt-enable-lpd=false", "--file-allocation=none", "--console-log-level=warn", "--summary-interval=0",
			"--seed-ratio=0", "--check-integrity=true", "--enable-dht6=false", "--async-dns=false", "--dir=" + dir, "--listen-port=" + port, "--dht-listen-port=" + port, torrent}, crypto...)...)
	}
	s, err := r.Swarm(ctx, 0, start)
	if err != nil {
		return nil, err
	}
	return s.session(start), nil
}
