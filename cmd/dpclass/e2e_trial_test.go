// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

const (
	passRules = "version: 1\nrules:\n  - match: {port: udp/7000-7999}\n    action: {pass: true}\n"
	dropRules = "version: 1\nrules:\n  - match: {port: udp/7000-7999}\n    action: {drop: true}\n"
	bothRules = "version: 1\nrules:\n  - match: {port: udp/9000}\n    action: {drop: true}\n  - match: {port: udp/7000-7999}\n    action: {pass: true}\n"
	timeRules = `version: 1
time_zone: Europe/Berlin
rules:
  - match: {port: udp/7000-7999}
    schedule: {days: [mon-sun], hours: ["00:00-24:00"]}
    action: {quota: {bytes: 1500, then: {drop: true}}}
`
)

// testTrial: dry runs, policies that have to be confirmed, what survives an apply and an agent.
func testTrial(t *testing.T, s *suite) {
	ctx := testContext(t)
	r := routed(t, lab.Topology{})
	agent := s.attach(t, r.Router, "eth0", "--no-classify", "--persist")
	c := newTalk(t, r, r.ClientAddr4, r.ServerAddr4, 7001)
	apply := func(rules string, flags ...string) result {
		return s.run(t, r.Router, append([]string{"policy", "apply", "eth0", save(t, "policy.yaml", rules)}, flags...)...)
	}
	passes := func() bool { return c.ask(t, 5) > 0 }

	apply(dropRules, "--dry-run").want(t, cli.ExitDone, "dry run")
	if !passes() {
		t.Error("a dry run drops packets")
	}
	rules := s.rules(t, r.Router)
	if len(rules) != 1 || !rules[0].DryRun || rules[0].Counters.Dropped == 0 || rules[0].Category["undecided"] != rules[0].Counters.Packets {
		t.Errorf("%+v", rules)
	}
	s.run(t, r.Router, "policy", "show", "eth0").want(t, cli.ExitDone, "dry run")
	s.run(t, r.Router, "flows", "eth0").want(t, cli.ExitDone, "dry 1")
	s.run(t, r.Router, "flows", "eth0", "-o", "json").want(t, cli.ExitDone, `"dry_run":true`)

	apply(passRules).want(t, cli.ExitDone, "policy in force")
	passes()
	counted := s.rules(t, r.Router)[0].Counters.Packets
	apply(bothRules).want(t, cli.ExitDone)
	if got := s.rules(t, r.Router)[1].Counters.Packets; counted == 0 || got < counted {
		t.Errorf("an unchanged rule has counted %d packets after an apply, %d before", got, counted)
	}

	// Nobody is left to take the policy back but the kernel.
	apply(dropRules, "--confirm", "15s").want(t, cli.ExitDone, "the policy before comes back in 15s")
	s.run(t, r.Router, "policy", "show", "eth0").want(t, cli.ExitDone, "not confirmed: at ", "the policy before, with 2 rules, comes back")
	apply(passRules).want(t, cli.ExitFailed, "waits to be confirmed", "policy confirm")
	agent.Signal(unix.SIGKILL)
	<-agent.Done()
	if err := lab.Until(ctx, "the policy before", func() (bool, error) { return len(s.rules(t, r.Router)) == 2, nil }); err != nil {
		t.Fatal(err)
	}
	if !passes() {
		t.Error("the policy before does not act again")
	}
	s.run(t, r.Router, "policy", "confirm", "eth0").want(t, cli.ExitFailed, "waits to be confirmed")

	apply(dropRules, "--confirm", "1h").want(t, cli.ExitDone)
	s.run(t, r.Router, "policy", "confirm", "eth0").want(t, cli.ExitDone, "the policy stays")
	apply(timeRules, "--confirm", "1h").want(t, cli.ExitDone)
	s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone, "no policy")
	apply(passRules, "--confirm", "10ms").want(t, cli.ExitUsage, "--confirm")

	// A quota survives the agent.
	apply(timeRules).want(t, cli.ExitDone)
	if err := lab.Until(ctx, "the quota", func() (bool, error) { return c.ask(t, 1) == 0, nil }); err != nil {
		t.Fatal(err)
	}
	quota := s.rules(t, r.Router)[0].Quota
	if quota == nil || quota.Hosts != 1 || quota.Beyond != 1 || quota.Most[0].Host != r.ClientAddr4 {
		t.Errorf("%+v", quota)
	}
	agent = s.attach(t, r.Router, "eth0", "--no-classify", "--persist")
	if passes() {
		t.Error("the quota begins again with another agent")
	}
	if now := s.rules(t, r.Router)[0].Quota; now == nil || quota == nil || now.Most[0].Bytes < quota.Most[0].Bytes {
		t.Errorf("%+v, before %+v", now, quota)
	}
	s.run(t, r.Router, "policy", "show", "eth0").want(t, cli.ExitDone, "quota: 1 hosts today, 1 beyond it, most: "+r.ClientAddr4)
	// Other tests look for what is left.
	if err := agent.Stop(); err != nil {
		t.Errorf("%v: %s", err, agent.Output())
	}
	s.run(t, r.Router, "detach", "eth0").want(t, cli.ExitDone)
}
