// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dpclass/dpclass/lab"
)

// streamRate is the rate that the iperf3 stream sends, and policedRate the rate that
// the policy lets through, in Mbit/s.
const (
	streamRate  = 60
	policedRate = 20
)

// figures are what one half of the demo measured, without dpclass's own counters.
type figures struct {
	stream         float64 // bits per second that the iperf3 server received
	ef, voice      int     // packets of the call on the server's side with DSCP EF, and in total
	gets, tunneled int     // requests through the tunnel, and those that succeeded
}

// traffic starts everything that runs for the rest of the demo.
func (s *show) traffic(ctx context.Context) error {
	s.out.step("Traffic: curl over TLS (IPv4, IPv6), sftp, a voice call (RTP), iperf3 over UDP and IPv6, OpenVPN")
	ctx, s.stopBackground = context.WithCancel(ctx)
	var err error
	if s.call, err = lab.StartCall(ctx, s.net.Client, callClient, s.net.Server, callServer); err != nil {
		return err
	}
	stream := lab.Iperf{Server: s.net.ServerAddr6, Port: iperfPort, UDP: true, Rate: fmt.Sprintf("%dM", streamRate), Length: 1200, Time: 150 * time.Second}
	if s.stream, err = s.net.Client.Start(ctx, "iperf3", stream.Args()...); err != nil {
		return err
	}
	if s.tunnel, err = lab.OpenVPN(ctx, s.net.Client, s.net.Server, s.net.ServerAddr4, vpnPort); errors.Is(err, os.ErrNotExist) {
		s.out.say("!!! SKIPPED: the tunnel: %v", err)
		s.tunnel = nil
	} else if err != nil {
		return err
	}
	s.repeat(ctx, 700*time.Millisecond, func() error {
		_, err := s.net.Client.Run(ctx, "curl", append(s.web.CurlArgs(s.net.ServerAddr4, "page.html"), "--max-time", "10")...)
		return err
	})
	s.repeat(ctx, 2*time.Second, func() error {
		_, err := s.net.Client.Run(ctx, "curl", append(s.web.CurlArgs(s.net.ServerAddr6, "film.mp4"), "--limit-rate", "1M", "--max-time", "20")...)
		return err
	})
	s.repeat(ctx, 3*time.Second, func() error {
		return s.net.Client.SFTP(ctx, s.ssh, s.net.ServerAddr4, "get backup.tar "+filepath.Join(s.lab.Dir(), "got"), "put "+filepath.Join(s.lab.Dir(), "got")+" again.tar")
	})
	if s.tunnel != nil {
		s.repeat(ctx, time.Second, func() error {
			_, err := s.net.Client.Run(ctx, "curl", append(s.web.CurlArgs(s.tunnel.ServerAddr, "page.html"), "--max-time", "10")...)
			return err
		})
	}
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

// received matches a report of the iperf3 server:
// [  5]   0.00-1.00   sec  7.15 MBytes  60.0 Mbits/sec  0.011 ms  0/6250 (0%)
var received = regexp.MustCompile(`sec\s+[\d.]+ \w?Bytes\s+([\d.]+) (\w?)bits/sec`)

// measure measures for a few seconds.
func (s *show) measure(ctx context.Context) (figures, error) {
	const seconds = 5
	var f figures
	file := filepath.Join(s.lab.Dir(), fmt.Sprintf("eth1-%d.pcap", time.Now().UnixNano()))
	clientHost, clientPort, _ := strings.Cut(callClient, ":")
	dump, err := s.net.Router.Capture(ctx, "eth1", file, "udp and src host "+clientHost+" and src port "+clientPort)
	if err != nil {
		return f, err
	}
	lines := len(received.FindAllString(s.iperf.Output(), -1))
	for end := time.Now().Add(seconds * time.Second); time.Now().Before(end); {
		if s.tunnel == nil {
			select {
			case <-ctx.Done():
				return f, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		f.gets++
		args := append(s.web.CurlArgs(s.tunnel.ServerAddr, "page.html"), "--max-time", "1")
		if _, err := s.net.Client.Run(ctx, "curl", args...); err == nil {
			f.tunneled++
		}
		if ctx.Err() != nil {
			return f, ctx.Err()
		}
		time.Sleep(200 * time.Millisecond)
	}
	if err := dump.Interrupt(); err != nil {
		return f, fmt.Errorf("tcpdump: %w: %s", err, dump.Output())
	}
	packets, err := s.net.Router.Packets(ctx, file)
	if err != nil {
		return f, err
	}
	f.voice = len(packets)
	for _, packet := range packets {
		if strings.Contains(packet, "tos 0xb8") { // EF, 46 << 2
			f.ef++
		}
	}
	// What the server has received in the whole seconds meanwhile.
	reports := received.FindAllStringSubmatch(s.iperf.Output(), -1)
	if len(reports) <= lines+1 {
		return f, fmt.Errorf("iperf3's server reported nothing in %d s: %s", seconds, s.iperf.Output())
	}
	for _, report := range reports[lines+1:] { // the first one began earlier
		rate, err := strconv.ParseFloat(report[1], 64)
		if err != nil {
			return f, err
		}
		f.stream += rate * map[string]float64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[report[2]] / float64(len(reports)-lines-1)
	}
	return f, nil
}

func (s *show) measureBefore(ctx context.Context) (err error) {
	s.out.step("Before the policy: 5 seconds measured at the server, by tcpdump on eth1 and by curl in the tunnel")
	s.before, err = s.measure(ctx)
	if err == nil {
		s.out.say("%s", s.before)
	}
	return err
}

// String returns the figures as text.
func (f figures) String() string {
	text := fmt.Sprintf("iperf3 stream received    %s\nvoice packets with EF     %d of %d", megabits(f.stream), f.ef, f.voice)
	if f.gets > 0 {
		text += fmt.Sprintf("\ncurl through the tunnel   %d of %d succeeded", f.tunneled, f.gets)
	}
	return text
}

// policy writes a policy for the running traffic, and applies it.
func (s *show) policy(ctx context.Context) error {
	s.out.step("A policy: mark the call EF, limit the stream to %d Mbit/s, drop the tunnel", policedRate)
	if err := s.verdict(ctx, "the voice call", "udp", 16384, "voip"); err != nil {
		return err
	}
	if err := s.verdict(ctx, "the iperf3 stream", "udp", iperfPort, "streaming"); err != nil {
		return err
	}
	drop := ""
	if s.tunnel != nil {
		if err := s.verdict(ctx, "the OpenVPN tunnel", "udp", vpnPort, "vpn-tunnel"); err != nil {
			return err
		}
		drop = "  - match: {category: vpn-tunnel}\n    action: {drop: true}\n"
	}
	text := fmt.Sprintf(`version: 1
rules:
  - match: {category: voip}
    action: {dscp: EF}
  - match: {category: streaming}
    action: {rate: %dmbit, scope: class}
%sprotect: [tcp/22]
`, policedRate, drop)
	file := filepath.Join(s.lab.Dir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	s.out.command("cat", "policy.yaml")
	s.out.say("%s", strings.TrimRight(text, "\n"))
	return s.dpclass(ctx, "policy", "apply", iface, file)
}

// verdict makes sure that a flow has the category that a rule names: if the model's
// verdict is another, it corrects it with an operator's verdict.
func (s *show) verdict(ctx context.Context, what, proto string, port uint16, wanted string) error {
	records, err := s.flows(ctx)
	if err != nil {
		return err
	}
	r, ok := find(records, proto, port)
	if !ok {
		return fmt.Errorf("%s (%s port %d) is not among the %d flows of dpclass flows %s", what, proto, port, len(records), iface)
	}
	switch {
	case r.Category == wanted && r.Final:
		s.out.say("the model calls %s %s (confidence %.2f)", what, r.Category, r.CategoryConfidence)
		return nil
	case r.Category == "":
		s.out.say("the model has not classified %s yet: the operator does", what)
	default:
		s.out.say("the model calls %s %s (confidence %.2f): the operator corrects it", what, r.Category, r.CategoryConfidence)
	}
	return s.dpclass(ctx, "flows", "set", iface, r.Key().String(), "--category", wanted)
}

func (s *show) measureAfter(ctx context.Context) (err error) {
	s.out.step("With the policy: the same 5 seconds again")
	if s.after, err = s.measure(ctx); err != nil {
		return err
	}
	s.out.say("%s", s.after)
	for _, args := range [][]string{{"policy", "show", iface}, {"flows", iface, "--sort", "dropped", "--limit", "6"}} {
		if err := s.dpclass(ctx, args...); err != nil {
			return err
		}
	}
	return s.bites()
}

// bites checks the figures against the policy.
func (s *show) bites() error {
	s.out.step("The policy works")
	s.out.say("%-28s %14s %14s", "", "before", "with policy")
	s.out.say("%-28s %14s %14s", "iperf3 stream", megabits(s.before.stream), megabits(s.after.stream))
	s.out.say("%-28s %14s %14s", "voice packets marked EF", share(s.before.ef, s.before.voice), share(s.after.ef, s.after.voice))
	if s.tunnel != nil {
		s.out.say("%-28s %14s %14s", "curl through the tunnel", share(s.before.tunneled, s.before.gets), share(s.after.tunneled, s.after.gets))
	}
	var errs []error
	if s.after.ef != s.after.voice || s.after.voice == 0 || s.before.ef != 0 {
		errs = append(errs, fmt.Errorf("the DSCP rule does not work: %s", s.after))
	}
	if s.after.stream > policedRate*1.15e6 || s.after.stream < policedRate*0.7e6 || s.before.stream < 2*policedRate*1e6 {
		errs = append(errs, fmt.Errorf("the rate rule does not work: %s", s.after))
	}
	if s.tunnel != nil && (s.after.tunneled != 0 || s.before.tunneled == 0) {
		errs = append(errs, fmt.Errorf("the drop rule does not work: %s", s.after))
	}
	return errors.Join(errs...)
}

func share(some, all int) string { return fmt.Sprintf("%d of %d", some, all) }
