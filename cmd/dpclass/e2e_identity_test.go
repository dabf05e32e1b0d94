// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/vector/packettest"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// testIdentity renames, swaps and creates interfaces again: every verb acts on the
// interface that has the name now.
func testIdentity(t *testing.T, s *suite) {
	rules := save(t, "policy.yaml", policyRules)
	t.Run("Renamed", func(t *testing.T) {
		near := twins(t)
		p := s.attach(t, near, "eth0", "--no-classify", "--mode", "tc")
		rename(t, near, "eth0", "wan0")
		rename(t, near, "eth1", "eth0")
		for _, verb := range [][]string{{"status", "eth0"}, {"flows", "eth0"}, {"policy", "show", "eth0"}, {"policy", "apply", "eth0", rules},
			{"policy", "clear", "eth0"}, {"flows", "set", "eth0", "tcp 10.0.0.1:1 10.0.0.2:2", "--category", "voip"}, {"explain", "eth0", "tcp 10.0.0.1:1 10.0.0.2:2"}} {
			s.run(t, near, verb...).want(t, cli.ExitFailed, "not attached", "wan0")
		}
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone, "nothing was attached")
		s.run(t, near, "policy", "apply", "wan0", rules).want(t, cli.ExitDone)
		if got := s.status(t, near, "wan0"); got.Iface != "wan0" || !got.Ready || got.Rules == 0 || got.Agent == nil || got.Agent.PID != p.Pid() {
			t.Errorf("under its new name: %+v", got)
		}
		// The interface that has the name now is free, and is the one that is watched.
		second := s.attach(t, near, "eth0", "--no-classify", "--mode", "tc")
		sees(t, s, near, "eth0", "wan0")
		all := ours(t)
		s.run(t, near, "detach", "wan0").want(t, cli.ExitDone, "wan0: detached")
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		if got := s.status(t, near, "eth0"); !got.Ready || got.Agent.PID != second.Pid() {
			t.Errorf("after detach of the other: %+v", got)
		}
		if err := second.Stop(); err != nil {
			t.Errorf("%v: %s", err, second.Output())
		}
		nothingLeft(t, all, near)
	})
	t.Run("Swapped", func(t *testing.T) {
		near := twins(t)
		first := s.attach(t, near, "eth0", "--no-classify", "--mode", "tc", "--persist", "--policy", rules)
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
		rename(t, near, "eth0", "tmp0")
		rename(t, near, "eth1", "eth0")
		rename(t, near, "tmp0", "eth1")
		p := s.attach(t, near, "eth0", "--no-classify", "--mode", "tc")
		sees(t, s, near, "eth0")
		if got := s.status(t, near, "eth0"); got.Rules != 0 {
			t.Errorf("the other's policy was taken over: %+v", got)
		}
		if got := s.status(t, near, "eth1"); got.Rules == 0 || got.Agent != nil || got.Hooks[0].State != loader.HookAttached {
			t.Errorf("the policy is to follow its interface: %+v", got)
		}
		all := ours(t)
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		s.run(t, near, "detach", "eth1").want(t, cli.ExitDone)
		nothingLeft(t, all, near)
	})
	t.Run("CreatedAgain", func(t *testing.T) {
		near := twins(t)
		first := s.attach(t, near, "eth1", "--no-classify", "--persist", "--policy", rules)
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
		recreate := func() {
			t.Helper()
			for _, args := range [][]string{
				{"link", "del", "eth1"}, {"link", "add", "eth1", "type", "veth", "peer", "name", "peer1"},
				{"link", "set", "eth1", "up"}, {"link", "set", "peer1", "up"},
			} {
				ip(t, near, args...)
			}
		}
		recreate()
		s.run(t, near, "status", "eth1").want(t, cli.ExitFailed, "not attached", "earlier interface")
		s.run(t, near, "policy", "apply", "eth1", rules).want(t, cli.ExitFailed, "not attached", "earlier interface")
		if got := s.run(t, near, "status"); got.code != cli.ExitFailed || !strings.Contains(got.out, "stale") {
			t.Errorf("stale pins are not reported: %+v", got)
		}
		p := s.attach(t, near, "eth1", "--no-classify", "--mode", "tc")
		if !strings.Contains(p.Output(), "earlier interface") {
			t.Errorf("nothing is said about the policy that is gone: %s", p.Output())
		}
		sees(t, s, near, "eth1")
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		noPins(t)
		kill(t, s.attach(t, near, "eth1", "--no-classify"))
		recreate()
		s.run(t, near, "detach", "eth1").want(t, cli.ExitDone, "eth1: detached")
		noPins(t)
	})
	t.Run("Dotted", func(t *testing.T) {
		near := twins(t)
		const name = "eth0.100@a#2"
		rename(t, near, "eth1", name)
		p := s.attach(t, near, name, "--no-classify")
		if out := s.run(t, near, "status").want(t, cli.ExitDone).out; !strings.HasPrefix(out, name+" ") {
			t.Errorf("status: %s", out)
		}
		for _, args := range [][]string{{"flows", name}, {"policy", "apply", name, rules}, {"policy", "show", name}} {
			s.run(t, near, args...).want(t, cli.ExitDone)
		}
		out := s.run(t, near, "__complete", "detach", "").want(t, cli.ExitDone).out
		if !strings.Contains(out, name+"\n") {
			t.Errorf("completion: %s", out)
		}
		all := ours(t)
		s.run(t, near, "detach", name).want(t, cli.ExitDone, name+": detached")
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		nothingLeft(t, all, near)
	})
	t.Run("Unknown", func(t *testing.T) {
		near := twins(t)
		s.run(t, near, "detach", "eht0").want(t, cli.ExitFailed, "eht0", "does not exist", `did you mean "eth0"?`)
		s.run(t, near, "attach", "eht0", "--no-classify").want(t, cli.ExitFailed, `did you mean "eth0"?`)
		s.run(t, near, "detach", "eth0").want(t, cli.ExitDone, "nothing was attached")
		kill(t, s.attach(t, near, "eth1", "--no-classify", "--persist"))
		rename(t, near, "eth1", "lan0")
		s.run(t, near, "detach", "eth1").want(t, cli.ExitFailed, "eth1", "lan0")
		s.run(t, near, "detach", "lan0").want(t, cli.ExitDone, "lan0: detached")
		noPins(t)
	})
}

// twins returns a host with eth0 and eth1, each with a peer on the same host.
func twins(t *testing.T) *lab.Host {
	t.Helper()
	h, err := lab.ForTest(t).Host("near")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"0", "1"} {
		ip(t, h, "link", "add", "eth"+n, "type", "veth", "peer", "name", "peer"+n)
		ip(t, h, "link", "set", "eth"+n, "up")
		ip(t, h, "link", "set", "peer"+n, "up")
	}
	return h
}

func ip(t *testing.T, h *lab.Host, args ...string) {
	t.Helper()
	if _, err := h.Run(testContext(t), "ip", args...); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, h *lab.Host, from, to string) {
	t.Helper()
	ip(t, h, "link", "set", from, "down")
	ip(t, h, "link", "set", from, "name", to)
	ip(t, h, "link", "set", to, "up")
}

// sees has every interface send a UDP packet from a port of its own, and holds that the
// attached ones count theirs and no other's.
func sees(t *testing.T, s *suite, h *lab.Host, ifaces ...string) {
	t.Helper()
	const port = 4000 // and the index
	index := map[string]uint16{}
	err := h.Do(func() error {
		devices, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, device := range devices {
			if device.Name == "lo" || strings.HasPrefix(device.Name, "peer") {
				continue
			}
			index[device.Name] = uint16(device.Index)
			if err := send(device.Index, port+uint16(device.Index)); err != nil {
				return fmt.Errorf("send on %s: %w", device.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, iface := range ifaces {
		seen := map[uint16]bool{}
		for key := range s.flows(t, h, iface) {
			seen[max(key.A.Port(), key.B.Port())] = true
		}
		for name, n := range index {
			if seen[port+n] != (name == iface) {
				t.Errorf("flows of %s: the packet that %s sent was seen: %v", iface, name, seen[port+n])
			}
		}
	}
}

// send sends a UDP packet with that source port on an interface.
func send(ifindex int, port uint16) error {
	packet := packettest.Spec{
		Proto: unix.IPPROTO_UDP, Payload: 8,
		Src: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), Dst: netip.MustParseAddrPort("10.0.0.2:9"),
	}.Build().Data
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, packettest.Ethernet(packet), 0, &unix.SockaddrLinklayer{Ifindex: ifindex})
}
