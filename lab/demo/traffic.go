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

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/lab"
)

// streamRate is the rate that the iperf3 stream sends, and policedRate the rate that
// the policy lets through, in Mbit/s.
const (
	streamRate  = 50
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
	s.out.step("Ten kinds of flow, from real programs")
	ctx, s.stopBackground = context.WithCancel(ctx)
	s.kinds = s.kindsOf()
	if err := s.start(ctx); err != nil {
		return err
	}
	stream := lab.Iperf{Server: s.net.ServerAddr6, Port: iperfPort, UDP: true, Rate: fmt.Sprintf("%dM", streamRate), Length: 1200, Time: 150 * time.Second}
	var err error
	if s.stream, err = s.net.Client.Start(ctx, "iperf3", stream.Args()...); err != nil {
		return err
	}
	for _, k := range s.kinds {
		s.out.say("%-18s %-40s %s %s", k.what, k.by, k.proto, k.server)
	}
	s.out.say("%-18s %-40s udp [%s]:%d", "and a speed test", "iperf3, which is of no category", s.net.ServerAddr6, iperfPort)
	s.out.say("The lab's own NGINX answers for the four names, with certificates of the lab's own CA.")
	for _, k := range s.kinds {
		if k.skipped != nil {
			s.out.say("\n!!! SKIPPED: %s: %v\n%s\n", k.what, k.skipped, strings.Join(fault.Advice(k.skipped), "\n"))
		}
	}
	return nil
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

// policy corrects a verdict by hand, writes a policy for the running traffic, and applies
// it.
func (s *show) policy(ctx context.Context) error {
	if err := s.correct(ctx); err != nil {
		return err
	}
	s.out.step("A policy: mark calls EF, limit each bulk transfer to %d Mbit/s, drop VPN tunnels", policedRate)
	text := fmt.Sprintf(`version: 1
rules:
  - match: {category: voip}
    action: {dscp: EF}
  - match: {category: file-transfer}
    action: {rate: %dmbit, scope: flow}
  - match: {category: vpn-tunnel}
    action: {drop: true}
  - match: {name: youtube.com}
    action: {dscp: AF41}
protect: [tcp/22]
`, policedRate)
	const file = "policy.yaml" // in the directory where dpclass runs
	if err := os.WriteFile(filepath.Join(s.lab.Dir(), file), []byte(text), 0o644); err != nil {
		return err
	}
	s.out.command("cat", file)
	s.out.say("%s", strings.TrimRight(text, "\n"))
	if err := s.dpclass(ctx, "policy", "check", file); err != nil {
		return err
	}
	return s.dpclass(ctx, "policy", "apply", iface, file)
}

// correct gives the speed test the operator's verdict.
func (s *show) correct(ctx context.Context) error {
	s.out.step("A correction by hand: iperf3's test traffic is of no category, so the operator decides")
	records, err := s.flows(ctx)
	if err != nil {
		return err
	}
	r, ok := find(records, "udp", iperfPort)
	if !ok {
		return fmt.Errorf("the iperf3 stream (udp port %d) is not among the %d flows of dpclass flows %s", iperfPort, len(records), iface)
	}
	if r.Category == "" {
		s.out.say("dpclass has not decided about it yet; it is bulk data, so:")
	} else {
		s.out.say("dpclass says %s (%s); it is bulk data, so:", r.Category, decidedBy(&r))
	}
	return s.dpclass(ctx, "flows", "set", iface, r.Key().String(), "--category", "file-transfer")
}

func (s *show) measureAfter(ctx context.Context) (err error) {
	s.out.step("With the policy: the same 5 seconds again")
	if s.after, err = s.measure(ctx); err != nil {
		return err
	}
	s.out.say("%s", s.after)
	if err := s.piped(ctx, "sed -n '/^#/,$p'", "policy", "show", iface); err != nil {
		return err
	}
	if err := s.dpclass(ctx, "flows", iface, "--sort", "dropped", "--limit", "6"); err != nil {
		return err
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
	if s.after.stream > policedRate*1.15e6 || s.after.stream < policedRate*0.5e6 || s.before.stream < policedRate*1.5e6 {
		errs = append(errs, fmt.Errorf("the rate rule does not work: %s", s.after))
	}
	if s.tunnel != nil && (s.after.tunneled != 0 || s.before.tunneled == 0) {
		errs = append(errs, fmt.Errorf("the drop rule does not work: %s", s.after))
	}
	return errors.Join(errs...)
}

func share(some, all int) string { return fmt.Sprintf("%d of %d", some, all) }
