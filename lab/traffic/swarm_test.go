// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/fault"
)

// runPrograms makes quick traffic of programs, each alone. It skips the test if one is not installed.
func runPrograms(t *testing.T, seed uint64, names ...string) (dir string, captures []*Capture) {
	t.Helper()
	needRoot(t)
	var classes []string
	for _, p := range Programs() {
		if !slices.Contains(names, p.Name) {
			continue
		}
		if err := p.Missing(); err != nil {
			t.Skipf("SKIPPED: %v; %s", err, strings.Join(fault.Advice(err), "; "))
		}
		classes = append(classes, p.Category)
	}
	dir = filepath.Join(t.TempDir(), "traffic")
	result, err := Run(t.Context(), Options{Out: dir, Quick: true, Seed: seed, Programs: names, Classes: classes, Log: func(e Event) {
		if e.Err != nil && !e.Skipped {
			t.Errorf("round %s: %v", e.Round, e.Err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	captures = slices.DeleteFunc(result.Captures, func(c *Capture) bool { return c.VPN })
	if len(captures) != len(names) {
		t.Errorf("%d captures outside tunnels, want one for each of %q", len(captures), names)
	}
	return dir, captures
}

// walk calls fn with each payload packet of a capture.
func walk(t *testing.T, file string, fn func(step dataset.Step, payload []byte)) {
	t.Helper()
	reader, err := capture.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	for {
		step, err := walker.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if payload := step.Data[step.Packet.Payload:]; len(payload) > 0 {
			fn(step, payload)
		}
	}
}

// TestTorrents wants all that peers do: they ask a tracker and the DHT, and speak over TCP and uTP, in the clear and
// encrypted.
func TestTorrents(t *testing.T) {
	seen := map[string]bool{}
	for _, seed := range []uint64{4, 5} { // each draws other settings
		dir, captures := runPrograms(t, seed, "aria2", "transmission", "qbittorrent")
		for _, c := range captures {
			clear := map[int]bool{} // flows in which a handshake is readable
			packets := map[int]int{}
			walk(t, filepath.Join(dir, c.Path), func(step dataset.Step, payload []byte) {
				number := step.Flow.Number
				packets[number]++
				tcp := step.Packet.Proto == 6
				switch {
				case bytes.HasPrefix(payload, []byte("GET /announce")):
					seen["tracker"], clear[number] = true, true
				case !tcp && bytes.HasPrefix(payload, []byte("d1:")):
					seen["DHT"] = true
				case bytes.Contains(payload, []byte("\x13BitTorrent protocol")): // BEP 3; after the header of BEP 29 over UDP
					seen["in the clear"], clear[number] = true, true
				case tcp && packets[number] > 20 && !clear[number]:
					seen["encrypted over TCP"] = true
				case !tcp && payload[0]&0xf == 1 && payload[0]>>4 <= 4 && packets[number] > 20: // ST_DATA to ST_SYN of version 1 (BEP 29)
					seen["uTP"] = true
					if !clear[number] {
						seen["encrypted over uTP"] = true
					}
				}
				if tcp {
					seen["TCP"] = true
				}
			})
		}
	}
	for _, want := range []string{"tracker", "DHT", "TCP", "uTP", "in the clear", "encrypted over TCP"} {
		if !seen[want] {
			t.Errorf("no peer has used: %s; seen: %v", want, seen)
		}
	}
}

// TestOneLink wants what no router passes on: packets to groups of the link, and to all.
func TestOneLink(t *testing.T) {
	dir, captures := runPrograms(t, 1, "avahi", "dhcp", "upnp")
	ports := map[string][]uint16{"avahi": {5353}, "dhcp": {67, 68, 546, 547}, "upnp": {1900}}
	for _, c := range captures {
		toMany, answers := 0, 0
		walk(t, filepath.Join(dir, c.Path), func(step dataset.Step, _ []byte) {
			from, to := step.Packet.Src, step.Packet.Dst
			if !slices.Contains(ports[c.Program], from.Port()) && !slices.Contains(ports[c.Program], to.Port()) {
				t.Fatalf("%s: a packet from %s to %s, want port %v", c.Path, from, to, ports[c.Program])
			}
			if to.Addr().IsMulticast() || to.Addr().String() == "255.255.255.255" {
				toMany++
			} else {
				answers++
			}
		})
		if toMany == 0 || answers == 0 && c.Program != "avahi" {
			t.Errorf("%s: %d packets to a group or to all, %d to one host", c.Path, toMany, answers)
		}
	}
	checkNDPI(t, dir, captures)
}
