// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// testInterfaces serves several interfaces by one agent, and interfaces of the
// same name in several namespaces.
func testInterfaces(t *testing.T, s *suite) {
	t.Run("Loopback", func(t *testing.T) {
		h := alone(t)
		for _, test := range []struct {
			args    []string
			says    string
			packets uint64
		}{
			{nil, "seen once, at ingress", 3},
			{[]string{"--direction", "both"}, "counts twice", 6},
		} {
			p := s.attach(t, h, append([]string{"lo", "--no-classify"}, test.args...)...)
			if out := p.Output(); !strings.Contains(out, test.says) {
				t.Errorf("%q: %s", test.args, out)
			}
			s.run(t, h, "status", "lo").want(t, cli.ExitDone, test.says)
			server, err := h.ListenUDP(testContext(t), "127.0.0.1:7000")
			if err != nil {
				t.Fatal(err)
			}
			client, err := h.Dial(testContext(t), "udp", "127.0.0.1:7001", "127.0.0.1:7000")
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := client.Write(make([]byte, 120)); err != nil {
					t.Fatal(err)
				}
			}
			record := s.waitFlow(t, h, "lo", parseKey(t, "udp 127.0.0.1:7001 127.0.0.1:7000"))
			if record.Packets != test.packets || record.Bytes != test.packets*148 {
				t.Errorf("%q: %d packets, %d bytes, want %d", test.args, record.Packets, record.Bytes, test.packets)
			}
			server.Close()
			client.Close()
			s.run(t, h, "detach", "lo").want(t, cli.ExitDone)
			if err := p.Wait(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("OneAgent", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		p := s.attach(t, r.Router, "eth0", "eth1", "--no-classify")
		k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6100)
		if got := k.ask(t, 10); got != 10 {
			t.Fatalf("%d answers of 10", got)
		}
		// A flow that crosses both is two rows.
		for iface, in := range map[string]string{"eth0": "10.0.1.2", "eth1": "10.0.1.2"} {
			record := s.flows(t, r.Router, iface)[k.key]
			if record.Iface != iface || record.PacketsIn != 10 || record.PacketsOut != 10 || record.Bytes != 20*128 || record.Src.String() != in {
				t.Errorf("%s: %+v %+v", iface, record, record.Live)
			}
			if got := s.status(t, r.Router, iface); got.Agent == nil || got.Agent.PID != p.Pid() {
				t.Errorf("%s: %+v", iface, got.Agent)
			}
		}
		if out := s.run(t, r.Router, "flows", "-o", "json").want(t, cli.ExitDone).out; strings.Count(out, "\n") != 2 {
			t.Errorf("flows of all interfaces: %s", out)
		}
		if out := s.run(t, r.Router, "status", "-o", "json").want(t, cli.ExitDone).out; strings.Count(out, "\n") != 2 {
			t.Errorf("status of all interfaces: %s", out)
		}
		before := ours(t)
		s.run(t, r.Router, "detach", "eth0", "eth1").want(t, cli.ExitDone)
		if err := p.Wait(); err != nil {
			t.Errorf("the agent: %v: %s", err, p.Output())
		}
		nothingLeft(t, before, r.Router)
	})
	t.Run("TwoNamespaces", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		client := s.attach(t, r.Client, "eth0", "--no-classify")
		// The other from outside, as an operator would.
		outside := alone(t)
		server := s.startAttach(t, outside, nil, "eth0", "--no-classify", "--netns", r.Server.Netns())
		if err := server.WaitOutput(testContext(t), "attached"); err != nil {
			t.Fatal(err)
		}
		k := newTalk(t, r, r.ClientAddr6, r.ServerAddr6, 6101)
		if got := k.ask(t, 10); got != 10 {
			t.Errorf("%d answers of 10", got)
		}
		at := s.flows(t, r.Client, "eth0")[k.key]
		if at.Live == nil || at.PacketsOut != 10 || at.PacketsIn != 10 {
			t.Errorf("at the client: %+v", at.Live)
		}
		out := s.run(t, outside, "flows", "eth0", "-o", "json", "--netns", r.Server.Netns()).want(t, cli.ExitDone).out
		if at := readRecords(t, out)[k.key]; at.Live == nil || at.PacketsOut != 10 || at.PacketsIn != 10 || at.Bytes != 20*148 {
			t.Errorf("at the server: %+v", at.Live)
		}
		s.run(t, outside, "flows", "set", "eth0", k.key.String(), "--category", "voip", "--netns", r.Server.Netns()).want(t, cli.ExitDone)
		if at := s.flows(t, r.Client, "eth0")[k.key]; at.Category != "" {
			t.Errorf("the client has the verdict of the server's flow: %+v", at)
		}
		all := ours(t)
		s.run(t, r.Client, "detach", "eth0").want(t, cli.ExitDone)
		if err := client.Wait(); err != nil {
			t.Errorf("%v: %s", err, client.Output())
		}
		s.run(t, r.Server, "status", "eth0").want(t, cli.ExitDone)
		s.run(t, outside, "status", "eth0").want(t, cli.ExitFailed, "not attached")
		s.run(t, outside, "detach", "--all").want(t, cli.ExitDone)
		if err := server.Wait(); err != nil {
			t.Errorf("%v: %s", err, server.Output())
		}
		nothingLeft(t, all, r.Client, r.Server)
	})
	t.Run("Tunnel", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			t.Skipf("SKIPPED, no tun devices: %v", err)
		}
		tunnel, err := lab.OpenVPN(testContext(t), r.Client, r.Server, r.ServerAddr4, 1194)
		if err != nil {
			t.Fatal(err)
		}
		p := s.attach(t, r.Client, "tun0", "eth0", "--no-classify")
		if got := s.status(t, r.Client, "tun0"); got.Mode != "tc" || got.Driver != "tun" {
			t.Errorf("mode %q, driver %q of a device without Ethernet", got.Mode, got.Driver)
		}
		stop := start(t, r.Client, "tun0")
		k := newTalk(t, r, tunnel.ClientAddr, tunnel.ServerAddr, 6103)
		if got := k.ask(t, 20); got != 20 {
			t.Errorf("%d answers of 20", got)
		}
		inside := s.flows(t, r.Client, "tun0")
		if err := sameCounts(inside, count(t, stop(), time.Time{})); err != nil || len(inside) != 1 {
			t.Errorf("%d flows in the tunnel: %v", len(inside), err)
		}
		outside := 0
		for _, record := range s.flows(t, r.Client, "eth0") {
			if record.DstPort == 1194 && record.PacketsOut >= 20 && record.PacketsIn >= 20 {
				outside++
			}
		}
		if outside != 1 {
			t.Errorf("the flow of the tunnel itself was seen %d times", outside)
		}
		s.run(t, r.Client, "flows", "set", "tun0", k.key.String(), "--category", "voip").want(t, cli.ExitDone)
		s.run(t, r.Client, "policy", "apply", "tun0", save(t, "mark.yaml", policyRules)).want(t, cli.ExitDone)
		stop = start(t, r.Server, "tun0")
		k.ask(t, 20)
		if c := count(t, stop(), time.Time{})[k.key]; c == nil || c.tos[46<<2|2] != 20 || c.badSums != 0 {
			t.Errorf("marked in the tunnel: %+v", c)
		}
		before := ours(t)
		if err := p.Stop(); err != nil {
			t.Errorf("%v: %s", err, p.Output())
		}
		nothingLeft(t, before, r.Client)
	})
	t.Run("NamespaceGone", func(t *testing.T) {
		near, _ := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify")
		before := ours(t)
		kill(t, p)
		if err := near.Lab().Close(); err != nil {
			t.Fatal(err)
		}
		s.run(t, alone(t), "detach", "--all").want(t, cli.ExitDone)
		nothingLeft(t, before)
	})
	t.Run("Direction", func(t *testing.T) {
		r := routed(t, lab.Topology{})
		for direction, want := range map[string]flow.Live{"ingress": {PacketsIn: 10, BytesIn: 1280}, "egress": {PacketsOut: 10, BytesOut: 1280}} {
			p := s.attach(t, r.Router, "eth0", "--no-classify", "--direction", direction)
			k := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 6102+len(direction))
			k.ask(t, 10)
			got := s.flows(t, r.Router, "eth0")[k.key].Live
			if got == nil || got.PacketsIn != want.PacketsIn || got.BytesIn != want.BytesIn || got.PacketsOut != want.PacketsOut || got.BytesOut != want.BytesOut {
				t.Errorf("%s: %+v", direction, got)
			}
			if hooks := s.status(t, r.Router, "eth0").Hooks; len(hooks) != 1 || hooks[0].Name != direction {
				t.Errorf("%s: %+v", direction, hooks)
			}
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("Gone", func(t *testing.T) {
		near, far := pair(t, false)
		p := s.attach(t, near, "eth0", "--no-classify")
		if _, err := far.Run(testContext(t), "ip", "link", "del", "eth0"); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, p.Wait()); code != cli.ExitFailed || !strings.Contains(p.Output(), "eth0") {
			t.Errorf("exit %d: %s", code, p.Output())
		}
		noPins(t)
	})
}
