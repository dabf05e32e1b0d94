// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/lab"
)

// testChecksum marks received packets whose checksum the kernel has summed up already
// (CHECKSUM_COMPLETE), as many network cards do. Here those are the packets inside VXLAN:
// the receiver has checked the outer UDP checksum over them. A header that was changed
// without telling the kernel makes it drop them.
func testChecksum(t *testing.T, s *suite) {
	near, far := pair(t, true)
	ends := map[*lab.Host][2]string{near: {"10.0.1.1", "10.0.1.2"}, far: {"10.0.1.2", "10.0.1.1"}}
	inner := map[*lab.Host][]string{near: {"10.91.0.1/24", "fd91::1/64"}, far: {"10.91.0.2/24", "fd91::2/64"}}
	for h, outer := range ends {
		err := h.Do(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "vx0"
			vxlan := &netlink.Vxlan{
				LinkAttrs: attrs, VxlanId: 7, Port: 4789, UDPCSum: true, SrcAddr: net.ParseIP(outer[0]), Group: net.ParseIP(outer[1]),
			}
			if err := netlink.LinkAdd(vxlan); err != nil {
				return err
			}
			return netlink.LinkSetUp(vxlan)
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.SetOffload("vx0", false); err != nil {
			t.Fatal(err)
		}
		if err := h.AddAddrs("vx0", inner[h]...); err != nil {
			t.Fatal(err)
		}
	}
	s.attach(t, near, "vx0", "--mode", "tc", "--no-classify")
	rules := save(t, "policy.yaml", "version: 1\nrules:\n  - match: {port: 7078}\n    action: {dscp: LE}\n")
	s.run(t, near, "policy", "apply", "vx0", rules).want(t, 0, "policy in force")
	const packets = 40
	for from, to := range map[string]string{"10.91.0.2:6001": "10.91.0.1:7078", "[fd91::2]:6001": "[fd91::1]:7078"} {
		ctx := testContext(t)
		server, err := near.ListenUDP(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := far.Dial(ctx, "udp", from, to)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for n := range packets {
			if _, err := client.Write(make([]byte, 170+n)); err != nil { // odd lengths too
				t.Fatal(err)
			}
		}
		received, packet := 0, make([]byte, 1500)
		for received < packets {
			if err := server.SetReadDeadline(time.Now().Add(silence)); err != nil {
				t.Fatal(err)
			}
			if _, err := server.Read(packet); err != nil {
				break
			}
			received++
		}
		if received != packets {
			t.Errorf("%s: %d of %d marked packets arrived", to, received, packets)
		}
		key := parseKey(t, "udp "+from+" "+to)
		if record := s.flows(t, near, "vx0")[key]; record.Packets != packets || record.Rule != 1 {
			t.Errorf("flow %q: %d packets by rule %d", key, record.Packets, record.Rule)
		}
	}
	if marked := s.rulesOf(t, near, "vx0")[0].Counters.Marked; marked != 2*packets {
		t.Errorf("%d packets marked, want %d", marked, 2*packets)
	}
}
