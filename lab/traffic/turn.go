// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
)

var _ = register(&Program{Name: "webrtc-turn", Category: "voip", App: "webrtc", Clients: 1, Peers: 2, Version: "chromium --version",
	Needs: []Need{{"chromium", "chromium"}, {"turnserver", "coturn"}}, Start: startTURN})

// startTURN: the caller's network lets nothing but connections to the TURN server (RFC 8656) through: UDP, TCP or TLS.
func startTURN(ctx context.Context, r *Round) (Session, error) {
	ca, err := r.CA()
	if err != nil {
		return nil, err
	}
	s, port, first := r.Servers[1], r.Servers[1].Port(r.draw), 40_000+r.IntN(20_000)
	cert, err := ca.Issue(s.Name)
	if err != nil {
		return nil, err
	}
	for _, file := range []string{cert.Cert, cert.Key} {
		if err := os.Chmod(file, 0o644); err != nil {
			return nil, err
		}
	}
	// Chromium looks up the server's name for TLS only.
	address := netip.AddrPortFrom(r.Clients[0].of(s), uint16(port)).String()
	url := pick(r.draw, "turn:"+address+"?transport=udp", "turn:"+address+"?transport=udp", "turn:"+address+"?transport=tcp",
		fmt.Sprintf("turns:%s:%d?transport=tcp", s.Name, port))
	// coturn tells TLS from what is not by the first bytes.
	p, err := s.Start(ctx, "turnserver", "-n", "--no-cli", "--log-file=stdout", "--simple-log", "--pidfile="+s.Dir+"/pid", "--listening-ip="+s.Addr4.String(), "--listening-ip="+s.Addr6.String(),
		"--relay-ip="+s.Addr4.String(), "--relay-ip="+s.Addr6.String(), fmt.Sprintf("--listening-port=%d", port), fmt.Sprintf("--tls-listening-port=%d", port),
		fmt.Sprintf("--min-port=%d", first), fmt.Sprintf("--max-port=%d", first+1000), "--cert="+cert.Cert, "--pkey="+cert.Key,
		"--lt-cred-mech", "--fingerprint", "--user=ann:correct-horse", "--realm="+s.Name, "--userdb="+s.Dir+"/userdb")
	if err != nil {
		return nil, err
	}
	if err := s.WaitTCP(ctx, p, port); err != nil {
		return nil, err
	}
	relay, err := json.Marshal(map[string]any{"iceTransportPolicy": "relay",
		"iceServers": []map[string]string{{"urls": url, "username": "ann", "credential": "correct-horse"}}})
	if err != nil {
		return nil, err
	}
	return r.meeting(ctx, string(relay))
}
