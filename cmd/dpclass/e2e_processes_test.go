// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// testProcesses: dpclass flows shows which process of the host opened the socket of a flow,
// of flows that go on and of those that have ended, and so does the log.
func testProcesses(t *testing.T, s *suite) {
	near, far := pair(t, false)
	ctx := testContext(t)
	web, err := far.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"file": 10_000}})
	if err != nil {
		t.Fatal(err)
	}
	nearWeb, err := near.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 10_000}}) // older than the agent
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.0.1.2:7007", "[fd00:1::2]:7007"} {
		echo(t, far, address)
	}
	agent := s.attach(t, near, "eth0", "--no-classify", "--log-format", "json")
	for _, address := range []string{"10.0.1.2", "fd00:1::2"} {
		if _, err := near.Run(ctx, "curl", web.CurlArgs(address, "file")...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := near.Run(ctx, python(t), "-c", udpClient, "10.0.1.2", "fd00:1::2"); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.0.1.1", "fd00:1::1"} {
		if _, err := far.Run(ctx, "curl", nearWeb.CurlArgs(address, "file")...); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := near.Dial(ctx, "udp", "", "10.0.1.2:7007") // still open
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	s.waitFlow(t, near, "eth0", parseKey(t, "udp "+conn.LocalAddr().String()+" 10.0.1.2:7007"))

	check := func(what string, records map[flow.Key]flow.Record) {
		t.Helper()
		got := map[string]int{}
		for key, r := range records {
			want := map[uint16]string{443: "curl", 8080: "nginx", 7007: "udp-client"}[r.DstPort]
			if netip.AddrPortFrom(r.Src, r.SrcPort).String() == conn.LocalAddr().String() {
				want = ourName(t)
			}
			if r.Process != want {
				t.Errorf("%s: %v has process %q, want %q", what, key, r.Process, want)
			}
			got[want]++
		}
		if got["curl"] != 2 || got["nginx"] != 2 || got["udp-client"] != 4 && what == "live" {
			t.Errorf("%s: %v", what, got)
		}
	}
	live := s.flows(t, near, "eth0")
	check("live", live)
	err = lab.Until(ctx, "flows of TCP have ended", func() (bool, error) {
		return len(s.flows(t, near, "eth0", "--ended")) >= 4, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	check("ended", s.flows(t, near, "eth0", "--ended"))
	if n := len(s.flows(t, near, "eth0", "--filter", "process:nginx")); n != 2 {
		t.Errorf("process:nginx finds %d flows, want 2", n)
	}
	s.run(t, near, "flows", "eth0").want(t, cli.ExitDone, "PROCESS", "udp-client")
	pins, err := filepath.Glob(filepath.Join(bpffs, "dpclass", "*", "*", "process_*"))
	if err != nil || len(pins) != 4 {
		t.Errorf("pins: %v %v, want 4", pins, err)
	}
	if err := agent.Interrupt(); err != nil {
		t.Fatalf("%v: %s", err, agent.Output())
	}
	for _, process := range []string{`"process":"curl"`, `"process":"nginx"`} {
		if strings.Count(agent.Output(), process) != 2 {
			t.Errorf("the log has not %s twice: %s", process, agent.Output())
		}
	}
	if _, err := os.Stat(filepath.Join(bpffs, "dpclass")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}

	// What an agent that was killed knew is not shown for its successor's.
	killed := s.attach(t, near, "eth0", "--no-classify", "--persist")
	if pins, err = filepath.Glob(filepath.Join(bpffs, "dpclass", "*", "*", "process_*")); err != nil || len(pins) != 4 {
		t.Errorf("pins: %v %v, want 4", pins, err)
	}
	kill(t, killed)
	successor := s.attach(t, near, "eth0", "--no-classify", "--processes=false")
	if pins, err = filepath.Glob(filepath.Join(bpffs, "dpclass", "*", "*", "process_*")); err != nil || len(pins) > 0 {
		t.Errorf("pins: %v %v, want none", pins, err)
	}
	if err := successor.Interrupt(); err != nil {
		t.Fatalf("%v: %s", err, successor.Output())
	}

	// With --processes=false, and where no local process has the socket, no process is shown.
	s.attach(t, near, "eth0", "--no-classify", "--processes=false")
	if _, err := near.Run(ctx, "curl", web.CurlArgs("10.0.1.2", "file")...); err != nil {
		t.Fatal(err)
	}
	for key, r := range s.flows(t, near, "eth0") {
		if r.Process != "" {
			t.Errorf("--processes=false: %v has process %q", key, r.Process)
		}
	}
}
