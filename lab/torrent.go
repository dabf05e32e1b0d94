// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // BitTorrent's hash (BEP 3)
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Torrent is a download with BitTorrent: aria2 on two hosts, without encryption and
// without DHT.
type Torrent struct {
	Seed, Peer *Process
	File       string // what the peer downloads
	Size       int64
}

// TorrentOptions says how to download with BitTorrent.
type TorrentOptions struct {
	SeedAddr string // IPv4 address of the host that has the file
	Port     int    // of the seed
	Size     int64  // of the file, in bytes
	Rate     string // limit as aria2 takes it, for example 500K; "": none
}

// BitTorrent starts a download from the seed to the peer. It returns when both programs
// run; the peer's ends when it has the file.
//
// The tracker is a web server on the peer's own loopback device, so the only flow
// between the hosts is the one between the two programs.
func BitTorrent(ctx context.Context, peer, seed *Host, options TorrentOptions) (*Torrent, error) {
	addr, err := netip.ParseAddr(options.SeedAddr)
	if err != nil || !addr.Is4() {
		return nil, fmt.Errorf("torrent from %q: want an IPv4 address (%w)", options.SeedAddr, err)
	}
	from, err := seed.mkdir("torrent")
	if err != nil {
		return nil, err
	}
	to, err := peer.mkdir("torrent")
	if err != nil {
		return nil, err
	}
	const name = "distribution.iso"
	if err := WriteFiles(from, map[string]int64{name: options.Size}); err != nil {
		return nil, err
	}
	tracker, err := peer.tracker(ctx, netip.AddrPortFrom(addr, uint16(options.Port)))
	if err != nil {
		return nil, err
	}
	file := filepath.Join(from, "it.torrent")
	if err := writeTorrent(file, filepath.Join(from, name), "http://"+tracker+"/announce"); err != nil {
		return nil, err
	}
	t := &Torrent{File: filepath.Join(to, name), Size: options.Size}
	common := []string{"--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
		"--bt-require-crypto=false", "--bt-min-crypto-level=plain", "--file-allocation=none", "--console-log-level=warn", "--summary-interval=0"}
	if t.Seed, err = seed.Start(ctx, "aria2c", append(common, "--dir="+from, fmt.Sprintf("--listen-port=%d", options.Port),
		"--seed-ratio=0", "--bt-seed-unverified", file)...); err != nil {
		return nil, err
	}
	if err := seed.WaitTCP(ctx, t.Seed, options.Port); err != nil {
		return nil, err
	}
	args := append(common, "--dir="+to, fmt.Sprintf("--listen-port=%d", options.Port+1), "--seed-time=0", file)
	if options.Rate != "" {
		args = append(args, "--max-download-limit="+options.Rate)
	}
	t.Peer, err = peer.Start(ctx, "aria2c", args...)
	return t, err
}

// tracker starts a tracker that knows one peer, and returns its address. It ends with
// the context.
func (h *Host) tracker(ctx context.Context, peer netip.AddrPort) (string, error) {
	listener, err := h.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	// A compact list of peers (BEP 23).
	compact := binary.BigEndian.AppendUint16(peer.Addr().AsSlice(), peer.Port())
	answer := fmt.Sprintf("d8:intervali60e5:peers%d:%se", len(compact), compact)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answer)
	})}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return listener.Addr().String(), nil
}

// writeTorrent writes the metainfo of a file (BEP 3).
func writeTorrent(path, file, tracker string) error {
	const pieceLength = 256 << 10
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	var hashes bytes.Buffer
	size, piece := int64(0), make([]byte, pieceLength)
	for {
		n, err := io.ReadFull(in, piece)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		sum := sha1.Sum(piece[:n]) //nolint:gosec // BitTorrent's hash (BEP 3)
		hashes.Write(sum[:])
		size += int64(n)
	}
	text := func(s string) string { return fmt.Sprintf("%d:%s", len(s), s) }
	info := fmt.Sprintf("d%si%de%s%s%si%de%s%se", text("length"), size, text("name"), text(filepath.Base(file)),
		text("piece length"), pieceLength, text("pieces"), text(hashes.String()))
	return os.WriteFile(path, []byte("d"+text("announce")+text(tracker)+text("info")+info+"e"), 0o600)
}
