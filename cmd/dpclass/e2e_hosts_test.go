// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

const hostRules = `version: 1
rules:
  - match: {port: udp/5201-5209, direction: in}
    action: {rate: 8mbit, burst: 128kb, scope: fair}
  - match: {port: udp/5211-5219, direction: in}
    action: {rate: 3mbit, burst: 128kb, scope: host}
  - match: {port: udp/5221-5229, direction: in}
    action: {rate: 6mbit, burst: 128kb, scope: class}
`

// hostLoad is a UDP load of iperf3 from one of the client's addresses.
type hostLoad struct {
	port             int
	client, to, rate string
	rule             int
}

// testHosts polices UDP of several hosts: the rates hold, and hosts that want more than their share of a class get the
// same, over IPv4 and IPv6.
func testHosts(t *testing.T, s *suite) {
	rules := save(t, "hosts.yaml", hostRules)
	ctx := testContext(t)
	r := routed(t, lab.Topology{})
	const second4, second6 = "10.0.1.3", "fd00:1::3"
	if err := r.Client.AddAddrs("eth0", second4+"/24", second6+"/64"); err != nil {
		t.Fatal(err)
	}
	loads := []hostLoad{
		{5201, r.ClientAddr4, r.ServerAddr4, "10M", 1}, {5202, second4, r.ServerAddr4, "20M", 1},
		{5211, r.ClientAddr6, r.ServerAddr6, "10M", 2}, {5212, second6, r.ServerAddr6, "10M", 2}, {5213, second6, r.ServerAddr6, "10M", 2},
		{5221, r.ClientAddr4, r.ServerAddr4, "10M", 3}, {5222, second6, r.ServerAddr6, "10M", 3},
	}
	s.attach(t, r.Router, "eth0", "--no-classify", "--policy", rules)
	var programs []*lab.Process
	for _, load := range loads {
		p, err := r.Server.IperfServer(ctx, load.port)
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
	}
	for _, load := range loads {
		p, err := r.Client.Start(ctx, "iperf3", lab.Iperf{
			Server: load.to, Port: load.port, Bind: load.client, UDP: true, Rate: load.rate, Length: 1000, Time: time.Minute,
		}.Args()...)
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
	}
	// passed returns the bytes that came through, by port of the load, and when the last packet came: that is when they
	// were read, because all send all the time.
	passed := func() (bytes map[int]uint64, at time.Time) {
		bytes = map[int]uint64{}
		for _, f := range s.flows(t, r.Router, "eth0") {
			if f.Proto == "udp" {
				bytes[int(f.DstPort)] += f.BytesIn - f.DroppedBytes
			}
			if f.LastSeen.After(at) {
				at = f.LastSeen
			}
		}
		return bytes, at
	}
	// Until the bursts have gone.
	const burst = 128 << 10
	wait := func(what string, more map[int]uint64, least uint64) {
		err := lab.Until(ctx, what, func() (bool, error) {
			now, _ := passed()
			for _, load := range loads {
				if now[load.port] < more[load.port]+least {
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	wait("the bursts", nil, burst)
	before, from := passed()
	wait("policed packets", before, 12*burst)
	after, to := passed()
	for _, p := range programs {
		p.Signal(unix.SIGKILL)
	}
	elapsed := to.Sub(from).Seconds()
	got := func(ports ...int) (rate float64) { // Mbit/s
		for _, port := range ports {
			rate += float64(after[port]-before[port]) * 8 / elapsed / 1e6
		}
		return rate
	}
	for _, check := range []struct {
		what  string
		rate  float64
		ports []int
	}{
		{"a class that hosts share", 8, []int{5201, 5202}}, {"a host", 3, []int{5211}}, {"a host with two flows", 3, []int{5212, 5213}},
		{"a class", 6, []int{5221, 5222}},
	} {
		rate := got(check.ports...)
		t.Logf("%s: %.3f Mbit/s in %.1f s, %.1f %% of the rate", check.what, rate, elapsed, 100*rate/check.rate)
		// A bucket that was not quite empty may pass its rest, too.
		if most := check.rate*1.03 + burst*8/elapsed/1e6; rate > most {
			t.Errorf("%s: %.3f Mbit/s came through, at most %.3f may", check.what, rate, most)
		}
	}
	one, other := got(5201), got(5202)
	t.Logf("the hosts of a shared class got %.3f and %.3f Mbit/s, of 10 and 20 that they sent", one, other)
	if share := one / (one + other); share < .4 || share > .6 {
		t.Errorf("one host got %.2f of what both got, want about half", share)
	}
	s.run(t, r.Router, "policy", "show", "eth0").want(t, cli.ExitDone, "police to 8 Mbit/s shared fairly by hosts", "police to 3 Mbit/s for each host")
}
