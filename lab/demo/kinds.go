// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/lab"
)

// kind is a kind of flow whose program the demo knows. dpclass sees the packets only.
type kind struct {
	what, by string // what a person would call it, and the programs
	truth    string // category
	proto    string
	server   netip.AddrPort // the server's end of its flows
	start    func(context.Context) error
	skipped  error // why it does not run
}

// The services that the lab's web server stands in for. Each has addresses of its own, so
// the demo tells their flows apart without their names.
const (
	videoName = "www.youtube.com"
	wikiName  = "en.wikipedia.org"
	chatName  = "web.whatsapp.com"
	driveName = "drive.google.com"

	videoAddr, wikiAddr, chatAddr, driveAddr = "fd00:2::11", "10.0.2.12", "fd00:2::13", "10.0.2.14"
	torrentPort, mailPort, snmpPort          = 6881, 25, 161
)

// kindsOf returns the ten kinds of flow.
func (s *show) kindsOf() []*kind {
	at := func(addr string, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	}
	return []*kind{
		{"video", "curl, NGINX: " + videoName, "streaming", "tcp", at(videoAddr, webPort), s.video, nil},
		{"web pages", "curl, NGINX: " + wikiName, "web", "tcp", at(wikiAddr, webPort), s.pages, nil},
		{"chat messages", "curl, NGINX: " + chatName, "chat", "tcp", at(chatAddr, webPort), s.chat, nil},
		{"upload to a drive", "curl, NGINX: " + driveName, "file-transfer", "tcp", at(driveAddr, webPort), s.drive, nil},
		{"login", "ssh, OpenSSH", "remote", "tcp", at(s.net.ServerAddr6, sshPort), s.login, nil},
		{"voice call", "RTP of the lab", "voip", "udp", netip.MustParseAddrPort(callServer), s.voice, nil},
		{"VPN tunnel", "OpenVPN", "vpn-tunnel", "udp", at(s.net.ServerAddr4, vpnPort), s.vpn, nil},
		{"mail", "curl, aiosmtpd", "email", "tcp", at(s.net.ServerAddr4, mailPort), s.mail, nil},
		{"BitTorrent", "aria2 on both hosts", "torrent", "tcp", at(s.net.ServerAddr4, torrentPort), s.torrent, nil},
		{"monitoring", "snmpbulkwalk, snmpd", "background", "udp", at(s.net.ServerAddr6, snmpPort), s.monitoring, nil},
	}
}

// start starts the traffic. A kind whose program is missing is skipped.
func (s *show) start(ctx context.Context) error {
	for _, k := range s.kinds {
		err := k.start(ctx)
		switch {
		case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
			k.skipped = err
		case err != nil:
			return fmt.Errorf("%s: %w", k.what, err)
		}
	}
	return nil
}

func (s *show) get(ctx context.Context, name, addr, file string, extra ...string) error {
	args := append(s.web.CurlArgsAs(name, addr, file), "--max-time", "20")
	_, err := s.net.Client.Run(ctx, "curl", append(args, extra...)...)
	return err
}

func (s *show) video(ctx context.Context) error {
	s.repeat(ctx, time.Second, func() error { return s.get(ctx, videoName, videoAddr, "film.mp4") })
	return nil
}

func (s *show) pages(ctx context.Context) error {
	s.repeat(ctx, 2*time.Second, func() error { return s.get(ctx, wikiName, wikiAddr, "page.html") })
	return nil
}

// chat sends some messages over one connection, one after the other.
func (s *show) chat(ctx context.Context) error {
	s.repeat(ctx, 2*time.Second, func() error {
		args := s.web.CurlArgsAs(chatName, chatAddr, "messages")
		args = append(args, "--max-time", "20", "--limit-rate", "400", "--data", "@"+filepath.Join(s.lab.Dir(), "message"))
		for range 4 {
			args = append(args, "--output", "/dev/null", s.web.URL(chatName, "messages"))
		}
		_, err := s.net.Client.Run(ctx, "curl", args...)
		return err
	})
	return os.WriteFile(filepath.Join(s.lab.Dir(), "message"), []byte(`{"content": "Lunch at twelve? The usual place, and bring the printouts."}`), 0o600)
}

func (s *show) drive(ctx context.Context) error {
	if err := lab.WriteFiles(s.lab.Dir(), map[string]int64{"album.zip": 4 << 20}); err != nil {
		return err
	}
	s.repeat(ctx, time.Second, func() error {
		return s.get(ctx, driveName, driveAddr, "album.zip", "--limit-rate", "500K", "--upload-file", filepath.Join(s.lab.Dir(), "album.zip"))
	})
	return nil
}

// login runs a command that prints something now and then, for the rest of the demo.
func (s *show) login(ctx context.Context) error {
	ssh, err := s.net.Server.SSHD(ctx, sshPort, nil)
	if err != nil {
		return err
	}
	s.repeat(ctx, time.Second, func() error {
		_, err := s.net.Client.SSH(ctx, ssh, s.net.ServerAddr6, "while sleep .5; do uptime; done")
		return err
	})
	return nil
}

func (s *show) voice(ctx context.Context) (err error) {
	s.call, err = lab.StartCall(ctx, s.net.Client, callClient, s.net.Server, callServer)
	return err
}

func (s *show) vpn(ctx context.Context) error {
	tunnel, err := lab.OpenVPN(ctx, s.net.Client, s.net.Server, s.net.ServerAddr4, vpnPort)
	if err != nil {
		return err
	}
	s.tunnel = tunnel
	s.repeat(ctx, time.Second, func() error { return s.get(ctx, s.web.Name, tunnel.ServerAddr, "page.html") })
	return nil
}

func (s *show) mail(ctx context.Context) error {
	server, err := s.net.Server.SMTPD(ctx, s.net.ServerAddr4, mailPort)
	if err != nil {
		return err
	}
	s.repeat(ctx, 2*time.Second, func() error { return s.net.Client.SendMail(ctx, server, 30_000) })
	return nil
}

func (s *show) torrent(ctx context.Context) error {
	_, err := lab.BitTorrent(ctx, s.net.Client, s.net.Server,
		lab.TorrentOptions{SeedAddr: s.net.ServerAddr4, Port: torrentPort, Size: 64 << 20, Rate: "500K"})
	return err
}

func (s *show) monitoring(ctx context.Context) error {
	if _, err := lab.FindProgram("snmpbulkwalk"); err != nil {
		return err
	}
	if _, err := s.net.Server.SNMPD(ctx, snmpPort); err != nil {
		return err
	}
	s.repeat(ctx, 2*time.Second, func() error {
		_, err := s.net.Client.SNMPWalk(ctx, s.net.ServerAddr6, snmpPort, "1.3.6.1.2.1.2")
		return err
	})
	return nil
}

// repeat calls a function repeatedly in the background. It ignores errors: the policy
// causes them, and the demo shows that.
func (s *show) repeat(ctx context.Context, pause time.Duration, do func() error) {
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		for {
			_ = do()
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}()
}

// has reports whether a flow is of the kind.
func (k *kind) has(r *flow.Record) bool {
	return r.Proto == k.proto && (netip.AddrPortFrom(r.Dst, r.DstPort) == k.server || netip.AddrPortFrom(r.Src, r.SrcPort) == k.server)
}

// result is what dpclass said about the flows of a kind.
type result struct {
	*kind
	decided, right int         // flows with a category, and those of them with the right one
	shown          flow.Record // a flow with a wrong category, if there is one
}

func (r result) ok() bool { return r.decided > 0 && r.right == r.decided }

// judge compares the verdicts with the truth. A flow without a verdict counts for nothing
// yet.
func judge(kinds []*kind, records []flow.Record) []result {
	results := make([]result, 0, len(kinds))
	for _, k := range kinds {
		r := result{kind: k}
		for _, record := range records {
			if !k.has(&record) || !record.CategoryFinal {
				continue
			}
			r.decided++
			right := record.Category == k.truth
			if right {
				r.right++
			}
			if r.decided == 1 || !right {
				r.shown = record
			}
		}
		results = append(results, r)
	}
	return results
}

// decidedBy says in a few words what decided a flow.
func decidedBy(r *flow.Record) string {
	switch r.CategorySource {
	case flow.SourceName.String():
		return "the name " + r.Name
	case flow.SourceProtocol.String():
		return "the protocol " + r.Protocol
	case flow.SourceModel.String():
		return fmt.Sprintf("the network, %.0f %%", r.CategoryConfidence*100)
	}
	return r.CategorySource
}

// scoreColumns are the columns of the table of the score.
var scoreColumns = []tui.Column[result]{
	{Title: "KIND", Cell: func(r result) tui.Cell { return tui.Cell{Text: r.what} }},
	{Title: "TRUTH", Cell: func(r result) tui.Cell { return tui.Cell{Text: r.truth} }},
	{Title: "VERDICT", Cell: func(r result) tui.Cell {
		if r.decided == 0 {
			return tui.Cell{Text: "-", Style: tui.Dim}
		}
		return tui.Cell{Text: r.shown.Category}
	}},
	{Title: "DECIDED BY", Cell: func(r result) tui.Cell {
		switch {
		case r.skipped != nil:
			return tui.Cell{Text: "skipped, see above", Style: tui.Dim}
		case r.decided == 0:
			return tui.Cell{Text: "-", Style: tui.Dim}
		}
		return tui.Cell{Text: decidedBy(&r.shown)}
	}},
	{Title: "RIGHT?", Cell: func(r result) tui.Cell {
		switch {
		case r.skipped != nil:
			return tui.Cell{Text: "-", Style: tui.Dim}
		case r.ok():
			return tui.Cell{Text: "yes", Style: tui.Green}
		}
		return tui.Cell{Text: "no", Style: tui.Red}
	}},
	{Title: "FLOWS", Right: true, Cell: func(r result) tui.Cell { return tui.Cell{Text: share(r.right, r.decided)} }},
}

// enoughRight is the share of the kinds that have to be right for the demo to succeed.
const enoughRight = 0.9

// score waits until every kind has a verdict, and prints the score.
func (s *show) score(ctx context.Context) error {
	s.out.step("The score: what dpclass says, and what it is (the demo knows which program opened each flow)")
	var results []result
	waiting, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	var readErr error
	// A kind without a verdict in time is wrong, and the table says so.
	_ = lab.Until(waiting, "verdicts", func() (bool, error) {
		records, err := s.flows(ctx)
		if err != nil {
			readErr = err
			return false, err
		}
		results = judge(s.kinds, records)
		for _, r := range results {
			if r.skipped == nil && r.decided == 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if readErr != nil || ctx.Err() != nil {
		return errors.Join(readErr, ctx.Err())
	}
	for _, line := range tui.Table(scoreColumns, results, s.out.color, width) {
		s.out.say("%s", line)
	}
	ran, right := 0, 0
	for _, r := range results {
		if r.skipped == nil {
			ran++
		}
		if r.ok() {
			right++
		}
	}
	text := fmt.Sprintf("%d of %d kinds right without correction", right, ran)
	if ran < len(results) {
		text += fmt.Sprintf(" (%d skipped)", len(results)-ran)
	}
	style := tui.Green
	if !enough(right, ran) {
		style = tui.Red
		s.tooFew = fmt.Errorf("only %s: at least %.0f %% are expected", text, enoughRight*100)
	}
	s.out.say("\n%s", s.out.paint(style, text))
	return nil
}

// enough reports whether enough kinds are right: one of ten may be wrong.
func enough(right, ran int) bool { return ran > 0 && float64(right) >= enoughRight*float64(ran)-1e-9 }
