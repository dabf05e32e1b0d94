// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// testFragments polices UDP in datagrams of several fragments, next to a flow of small
// packets with the same bucket: both together get the rate, and no fragment comes through
// whose datagram does not come through.
func testFragments(t *testing.T, s *suite) {
	const (
		rate  = 4_000_000 / 8 // bytes a second
		burst = 128 << 10     // the default at that rate
		big   = 6000          // five fragments
		small = 200
		load  = 40_000_000 / 8 // bytes a second of the big datagrams
	)
	rules := "version: 1\nrules:\n  - match: {port: udp/7078}\n    action: {rate: 4mbit, scope: class}\n"
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			near, far := pair(t, false)
			s.attach(t, near, "eth0", "--mode", mode, "--no-classify")
			for _, family := range []struct{ server, client, statistics, prefix string }{
				{"10.0.1.1", "10.0.1.2", "snmp", "Ip"}, {"[fd00:1::1]", "[fd00:1::2]", "snmp6", "Ip6"},
			} {
				s.run(t, near, "policy", "apply", "eth0", save(t, "policy.yaml", rules)).want(t, cli.ExitDone, "policy in force")
				server, err := near.ListenUDP(testContext(t), family.server+":7078")
				if err != nil {
					t.Fatal(err)
				}
				defer server.Close()
				received, last := map[int]int{}, time.Time{}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for packet := make([]byte, big+1); ; {
						n, err := server.Read(packet)
						if err != nil {
							return
						}
						received[n]++
						last = time.Now()
					}
				}()
				reassembled, wanted := reassembly(t, near, family.statistics, family.prefix)
				begun := time.Now()
				var senders sync.WaitGroup
				for port, length := range map[string]int{"6001": big, "6002": small} {
					senders.Go(func() { send(t, far, family.client+":"+port, family.server+":7078", length, load*length/big) })
				}
				senders.Wait()
				time.Sleep(silence)
				server.Close()
				<-done
				whole, fragments := reassembly(t, near, family.statistics, family.prefix)
				whole, fragments = whole-reassembled, fragments-wanted

				bytes := received[big]*big + received[small]*small
				elapsed := last.Sub(begun).Seconds()
				t.Logf("%s: %d datagrams of %d bytes and %d of %d: %.1f Mbit/s in %.1f s; %d fragments for %d datagrams",
					family.server, received[big], big, received[small], small,
					float64(bytes)*8e-6/elapsed, elapsed, fragments, whole)
				if most := rate*(elapsed+policeTick.Seconds()) + burst + big; float64(bytes) > most {
					t.Errorf("%s: %d bytes came through, at most %.0f may", family.server, bytes, most)
				}
				if received[big] == 0 || received[small] == 0 {
					t.Errorf("%s: a flow is starved: %v", family.server, received)
				}
				if fragments != 5*whole {
					t.Errorf("%s: %d fragments came through for %d datagrams of five", family.server, fragments, whole)
				}
			}
		})
	}
}

// send sends datagrams for two seconds, at a rate in bytes a second.
func send(t *testing.T, h *lab.Host, from, to string, length, rate int) {
	conn, err := h.Dial(context.Background(), "udp", from, to)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	packet := make([]byte, length)
	for begun, sent := time.Now(), 0; time.Since(begun) < 2*time.Second; sent += length {
		if _, err := conn.Write(packet); err != nil {
			t.Error(err)
			return
		}
		time.Sleep(time.Until(begun.Add(time.Duration(float64(sent) / float64(rate) * float64(time.Second)))))
	}
}

// reassembly returns how many datagrams a host has put together, and of how many
// fragments, whole or not.
func reassembly(t *testing.T, h *lab.Host, file, prefix string) (datagrams, fragments int) {
	t.Helper()
	var text []byte
	err := h.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/" + file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	if lines := strings.Split(string(text), "\n"); file == "snmp" { // "Ip:" and names, "Ip:" and counts
		names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
		for i, name := range names {
			counts["Ip"+name], _ = strconv.Atoi(values[i])
		}
	} else {
		for _, line := range lines {
			if name, value, ok := strings.Cut(line, "\t"); ok {
				counts[strings.TrimSpace(name)], _ = strconv.Atoi(strings.TrimSpace(value))
			}
		}
	}
	datagrams, found := counts[prefix+"ReasmOKs"]
	if !found {
		t.Fatalf("no %sReasmOKs in %q", prefix, text)
	}
	return datagrams, counts[prefix+"ReasmReqds"]
}
