// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// testReplay replays a capture of real programs through an interface: every flow
// is seen, counted exactly and decided as classify decides the capture.
func testReplay(t *testing.T, s *suite) {
	file := record(t)
	wire := count(t, file, time.Time{})
	packets := 0
	for _, c := range wire {
		packets += int(c.packets)
	}
	t.Logf("%d flows of %d packets", len(wire), packets)
	for _, mode := range []struct{ asked, got string }{{"auto", "native"}, {"tc", "tc"}} {
		t.Run(mode.asked, func(t *testing.T) {
			watcher, sender := pair(t, true)
			args := []string{"eth0", "--mode", mode.asked}
			if s.library == "" {
				args = append(args, "--no-classify")
			}
			s.attach(t, watcher, args...)
			if got := s.status(t, watcher, "eth0").Mode; string(got) != mode.got {
				t.Errorf("mode %s is %q, want %q", mode.asked, got, mode.got)
			}
			// Fast, but not so fast that a flow is over before its verdict.
			if out, err := sender.Replay(testContext(t), lab.Replay{Iface: "eth0", File: file, PPS: 400}); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var flows map[flow.Key]flow.Record
			err := lab.Until(testContext(t), "every packet counted", func() (bool, error) {
				flows = s.flows(t, watcher, "eth0")
				seen := 0
				for _, r := range flows {
					seen += int(r.Packets)
				}
				return seen >= packets, nil
			})
			if err != nil {
				t.Error(err)
			}
			if err := sameCounts(flows, wire); err != nil {
				t.Error(err)
			}
			for key, r := range flows {
				if r.PacketsOut != 0 || r.Dropped != 0 || r.Iface != "eth0" {
					t.Errorf("flow %q: %+v", key, r.Live)
				}
			}
			if s.library == "" {
				t.Skip("SKIPPED, no ONNX Runtime: the verdicts of the replay")
			}
			compareVerdicts(t, s, watcher, file)
		})
	}
}

// compareVerdicts holds the verdicts on an interface against those of classify.
func compareVerdicts(t *testing.T, s *suite, h *lab.Host, file string) {
	t.Helper()
	offline := readRecords(t, s.run(t, h, "classify", file, "-o", "json").want(t, cli.ExitDone).out)
	budget := s.status(t, h, "eth0").Samples
	var problems error
	err := lab.Until(testContext(t), "the verdicts of classify", func() (bool, error) {
		flows := s.flows(t, h, "eth0")
		previous := problems
		problems = nil
		for key, want := range offline {
			got, there := flows[key]
			if !there {
				return false, fmt.Errorf("flow %q is gone; before: %w", key, previous)
			}
			near := func(a, b float64) bool { return math.Abs(a-b) <= .01 }
			if got.Category != want.Category || got.App != want.App || got.Final != want.Final || got.Source != want.Source ||
				!near(got.CategoryConfidence, want.CategoryConfidence) || !near(got.AppConfidence, want.AppConfidence) {
				problems = fmt.Errorf("flow %q: live %+v, offline %+v", key, got, want)
			}
			// A sample that was on its way when the verdict became final is one too many.
			if got.Samples < want.Samples || got.Samples > budget || !want.Final && got.Samples != want.Samples {
				problems = fmt.Errorf("flow %q: %d samples live, %d offline, budget %d", key, got.Samples, want.Samples, budget)
			}
		}
		return problems == nil, nil
	})
	if err != nil {
		t.Errorf("%v: %v", err, problems)
	}
	finals := 0
	for _, r := range offline {
		if r.Final {
			finals++
		}
	}
	t.Logf("%d flows decided alike, %d of them finally", len(offline), finals)
	if finals == 0 {
		t.Error("no flow was decided")
	}
}

// testVerdict follows a call from its first packet to what the policy makes of the
// verdict, on the wire.
func testVerdict(t *testing.T, s *suite) {
	s.needLibrary(t)
	ctx := testContext(t)
	r := routed(t, lab.Topology{})
	rules := save(t, "mark.yaml", "version: 1\nrules:\n  - match: {}\n    action: {dscp: EF}\n")
	s.attach(t, r.Router, "eth0", "--policy", rules)
	stop := start(t, r.Server, "eth0", "udp")
	call, err := lab.StartCall(ctx, r.Client, "["+r.ClientAddr6+"]:4000", r.Server, "["+r.ServerAddr6+"]:4002")
	if err != nil {
		t.Fatal(err)
	}
	key := parseKey(t, call.Flow)
	var decided flow.Record
	if err := lab.Until(ctx, "a final verdict", func() (bool, error) {
		decided = s.flows(t, r.Router, "eth0")[key]
		return decided.Final, nil
	}); err != nil {
		t.Fatalf("%v: %+v", err, s.flows(t, r.Router, "eth0"))
	}
	if decided.Category == "" || decided.Source != "protocol" || decided.Samples == 0 || decided.CategoryConfidence == 0 || decided.App != "" {
		t.Errorf("%+v", decided)
	}
	if err := lab.Until(ctx, "packets after the verdict", func() (bool, error) {
		return s.rules(t, r.Router)[0].Counters.Marked > 20, nil
	}); err != nil {
		t.Error(err)
	}
	stats, err := call.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if stats.ReceivedByB < stats.SentByA-1 || stats.ReceivedByA < stats.SentByB-1 {
		t.Errorf("packets of the call were lost: %+v", stats)
	}
	// Before the verdict as it was sent, then marked.
	c := count(t, stop(), time.Time{})[key]
	if c == nil || c.tos[46<<2] == 0 || c.tos[0] == 0 || c.tos[0]+c.tos[46<<2] != int(c.packets) {
		t.Errorf("on the wire: %+v", c)
	}
	if got := s.status(t, r.Router, "eth0"); got.Counters["sampled"] == 0 || got.Counters["ring_full"] != 0 || got.Rules != 1 || got.Samples == 0 {
		t.Errorf("%+v", got)
	}
	var agent *loader.AgentStats
	if err := lab.Until(ctx, "the agent's figures", func() (bool, error) { // which it publishes each second
		agent = s.status(t, r.Router, "eth0").Agent
		return agent != nil && agent.Samples > 0 && agent.Verdicts > 0 && agent.P50 > 0 && agent.P99 >= agent.P50 && agent.BatchMean >= 1, nil
	}); err != nil || agent.Shed != 0 {
		t.Errorf("%v: %+v", err, agent)
	}
	t.Logf("a call is %s (%.2f) after %d samples, packet to verdict %.2f ms", decided.Category, decided.CategoryConfidence, decided.Samples, agent.P50.Float())
}

// testJumbo counts and decides packets of 9000 bytes.
func testJumbo(t *testing.T, s *suite) {
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			ctx := testContext(t)
			r := routed(t, lab.Topology{MTU: 9000, NoOffload: true})
			args := []string{"eth0", "--mode", mode}
			if s.library == "" {
				args = append(args, "--no-classify")
			}
			s.attach(t, r.Router, args...)
			web, err := r.Server.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"page": 300 << 10}})
			if err != nil {
				t.Fatal(err)
			}
			stop := start(t, r.Client, "eth0")
			for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
				if _, err := r.Client.Run(ctx, "curl", web.CurlArgs(addr, "page")...); err != nil {
					t.Fatal(err)
				}
			}
			var problem error
			if err := lab.Until(ctx, "flows ended", func() (bool, error) {
				problem = eventually(s.flows(t, r.Router, "eth0"))
				return problem == nil, nil
			}); err != nil {
				t.Errorf("%v: %v", err, problem)
			}
			flows := s.flows(t, r.Router, "eth0")
			if err := sameCounts(flows, count(t, stop(), time.Time{})); err != nil {
				t.Error(err)
			}
			for key, r := range flows {
				if s.library != "" && (r.Samples == 0 || r.Category == "") {
					t.Errorf("flow %q: %+v", key, r)
				}
			}
		})
	}
}

// record makes a capture of wire packets: TLS, SFTP, iperf3 and a call, over both
// IP versions.
func record(t *testing.T) string {
	t.Helper()
	ctx := testContext(t)
	r := routed(t, lab.Topology{NoOffload: true})
	web, err := r.Server.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"page": 40 << 10}})
	if err != nil {
		t.Fatal(err)
	}
	ssh, err := r.Server.SSHD(ctx, 22, map[string]int64{"report": 30 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for port := 5201; port <= 5202; port++ {
		if _, err := r.Server.IperfServer(ctx, port); err != nil {
			t.Fatal(err)
		}
	}
	stop := start(t, r.Client, "eth0")
	call, err := lab.StartCall(ctx, r.Client, r.ClientAddr4+":4000", r.Server, r.ServerAddr4+":4002")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	each := func(what string, do func() error) {
		work.Add(1)
		go func() {
			defer work.Done()
			if err := do(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}()
	}
	for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		each("curl", func() error {
			_, err := r.Client.Run(ctx, "curl", web.CurlArgs(addr, "page")...)
			return err
		})
	}
	each("sftp", func() error { return r.Client.SFTP(ctx, ssh, r.ServerAddr4, "get report /dev/null") })
	each("iperf3 TCP", func() error {
		_, err := r.Client.Iperf(ctx, lab.Iperf{Server: r.ServerAddr6, Port: 5201, Rate: "400K", Length: 8000, Time: time.Second})
		return err
	})
	each("iperf3 UDP", func() error {
		_, err := r.Client.Iperf(ctx, lab.Iperf{Server: r.ServerAddr6, Port: 5202, UDP: true, Rate: "400K", Length: 1000, Time: time.Second})
		return err
	})
	work.Wait()
	if _, err := call.Stop(); err != nil {
		t.Error(err)
	}
	file := stop()
	// tcpdump reads as many packets of TCP and UDP in it as we do.
	lines, err := r.Client.Packets(ctx, file, "tcp or udp")
	if err != nil {
		t.Fatal(err)
	}
	packets := 0
	for _, c := range count(t, file, time.Time{}) {
		packets += int(c.packets)
	}
	if packets != len(lines) || packets < 300 {
		t.Errorf("%d packets in %q, tcpdump reads %d", packets, filepath.Base(file), len(lines))
	}
	return file
}

// testOffload sends both ways with segmentation left to the device and received
// packets joined: the counts are those of the wire.
func testOffload(t *testing.T, s *suite) {
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			ctx := testContext(t)
			near, far := pair(t, false)
			// The far end sees wire packets. The near end's stack hands over
			// super-packets, which are cut after our egress hook.
			if err := far.SetOffload("eth0", false); err != nil {
				t.Fatal(err)
			}
			if out, err := near.Run(ctx, "ethtool", "-K", "eth0", "tso", "off", "tx-udp-segmentation", "off", "gso", "on", "gro", "on"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if _, err := far.IperfServer(ctx, 5201); err != nil {
				t.Fatal(err)
			}
			s.attach(t, near, "eth0", "--mode", mode, "--no-classify")
			stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
			if err != nil {
				t.Fatal(err)
			}
			defer stats.Close()
			stop := start(t, far, "eth0")
			for _, load := range []lab.Iperf{{Server: "10.0.1.2"}, {Server: "fd00:1::2", Reverse: true}} {
				load.Port, load.Rate, load.Time = 5201, "100M", time.Second
				if _, err := near.Iperf(ctx, load); err != nil {
					t.Fatal(err)
				}
			}
			// The last packets may be on their way still: all are counted in the end.
			var problem error
			if err := lab.Until(ctx, "counts settle", func() (bool, error) {
				problem = eventually(s.flows(t, near, "eth0"))
				return problem == nil, nil
			}); err != nil {
				t.Fatalf("%v: %v", err, problem)
			}
			flows := s.flows(t, near, "eth0")
			wire := count(t, stop(), time.Time{})
			if err := sameCounts(flows, wire); err != nil {
				t.Error(err)
			}
			var in, out uint64
			for _, r := range flows {
				in += r.PacketsIn
				out += r.PacketsOut
			}
			runs := map[string]uint64{}
			for _, hook := range s.status(t, near, "eth0").Hooks {
				runs[hook.Name] = runCount(t, ebpf.ProgramID(hook.ProgID))
			}
			t.Logf("%d packets in by %d runs, %d out by %d runs", in, runs["ingress"], out, runs["egress"])
			if runs["egress"] == 0 || runs["egress"]*3 > out*2 {
				t.Errorf("%d packets went out by %d runs of the program: no super-packets", out, runs["egress"])
			}
		})
	}
}

// eventually returns an error while a TCP flow has not ended.
func eventually(flows map[flow.Key]flow.Record) error {
	for key, r := range flows {
		if r.Proto == "tcp" && r.Ended == "" {
			return fmt.Errorf("flow %q has not ended", key)
		}
	}
	return nil
}

func runCount(t *testing.T, id ebpf.ProgramID) uint64 {
	t.Helper()
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	info, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return info.RunCount
}
