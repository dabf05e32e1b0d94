// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/policy"
)

const goodPolicy = "version: 1\nrules:\n  - match: {category: voip}\n    action: {dscp: EF}\n  - match: {app: torrent}\n    action: {rate: 1mbit, burst: 10kb}\n"

func TestPolicyCheck(t *testing.T) {
	good := write(t, "good.yaml", goodPolicy)
	code, out, errOut := call(t, "", "policy", "check", good)
	if code != cli.ExitDone || !strings.Contains(out, "mark DSCP EF (46)") || !strings.Contains(out, "police to 1 Mbit/s, burst 10 KiB") {
		t.Errorf("exit %d: %s", code, out)
	}
	if !strings.HasPrefix(errOut, "warning: "+good+":6:") {
		t.Errorf("warning %q", errOut)
	}
	if code, fromIn, _ := call(t, goodPolicy, "policy", "check", "-"); code != cli.ExitDone || fromIn != out {
		t.Errorf("from standard input: exit %d: %s", code, fromIn)
	}
	code, out, _ = call(t, "", "policy", "-o", "json", "check", good)
	var second policy.RuleLine
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != cli.ExitDone || len(lines) != 2 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if err := json.Unmarshal([]byte(lines[1]), &second); err != nil || second.Rate != 1e6 || second.Burst != 10240 || second.Scope != "class" {
		t.Errorf("%v: %s", err, lines[1])
	}
	for _, bad := range []string{"", "version: 1\nrules:\n - {}\n - {a: 1}\n - {b: 2}\n - {}\n", "\x00\x01", "version: 1\nrule: []"} {
		code, out, errOut := call(t, "", "policy", "check", write(t, "bad.yaml", bad))
		if code != cli.ExitFailed || out != "" {
			t.Errorf("%q: exit %d, %s", bad, code, out)
		}
		checkError(t, errOut)
	}
	code, _, errOut = call(t, "", "policy", "check", t.TempDir()+"/absent.yaml")
	if code != cli.ExitFailed || !strings.Contains(errOut, "no such file") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	code, _, errOut = call(t, "", "policy", "check", t.TempDir())
	if code != cli.ExitFailed || !strings.Contains(errOut, "is a directory") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestPolicyInit(t *testing.T) {
	code, out, errOut := call(t, "", "policy", "init")
	if code != cli.ExitDone || !strings.Contains(out, "diffserv  a DSCP for each kind of traffic") || errOut != "" {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	code, out, _ = call(t, "", "policy", "init", "-o", "json")
	if code != cli.ExitDone || !strings.HasPrefix(out, `{"name":"diffserv","summary":"`) {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, template := range policy.Templates() {
		code, text, errOut := call(t, "", "policy", "init", template.Name)
		if code != cli.ExitDone || text != string(template.Text()) || errOut != "" {
			t.Errorf("exit %d: %s%s", code, text, errOut)
		}
		if code, said, errOut := call(t, text, "policy", "check", "-"); code != cli.ExitDone || !strings.HasPrefix(said, "1. Packets ") || errOut != "" {
			t.Errorf("%s: exit %d: %s%s", template.Name, code, said, errOut)
		}
	}
	file := filepath.Join(t.TempDir(), "new.yaml")
	if code, out, errOut := call(t, "", "policy", "init", "diffserv", "--out", file); code != cli.ExitDone || !strings.Contains(out, "dpclass policy check "+file) {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"examples --out " + file:        "exists already",
		"diffserv --out " + file + "/x": "not a directory",
		"difserv":                       `did you mean "diffserv"?`,
		"--out " + file:                 "--out needs the name of a template",
		"diffserv examples":             `unexpected argument "examples"`,
	} {
		code, out, errOut := call(t, "", append([]string{"policy", "init"}, strings.Fields(args)...)...)
		if code == cli.ExitDone || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d: %s%s", args, code, out, errOut)
		}
		checkError(t, errOut)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
}

func TestShowPolicy(t *testing.T) {
	p, _, err := policy.Parse("p.yaml", []byte(goodPolicy), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := flow.ParseKey("tcp 10.0.0.1:22 10.0.0.9:50000")
	if err != nil {
		t.Fatal(err)
	}
	p.Flows, p.DropUnparsed = []flow.Key{key}, true
	var out bytes.Buffer
	shown := shownPolicy{policy: p, rules: []loader.RuleReport{
		{RuleStats: loader.RuleStats{Packets: 20, Bytes: 4000, Marked: 20}},
		{RuleStats: loader.RuleStats{Packets: 5, Bytes: 5000, Dropped: 3}},
	}}
	if err := shown.print(&out, "eth0"); err != nil {
		t.Fatal(err)
	}
	const want = goodPolicy + `
#  MATCH          ACTION                     PACKETS   BYTES  DROPPED  MARKED
1  category voip  mark DSCP EF (46)               20  4.0 kB        -      20
2  app torrent    police to 1 Mbit/s in all        5  5.0 kB        3       -
TCP and UDP packets that cannot be read are dropped, except from and to protected prefixes.
never dropped or policed: ARP, ND, ICMP, tcp 10.0.0.1:22 10.0.0.9:50000
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}

	out.Reset()
	p.DryRun = true
	shown.until = time.Now().Add(time.Minute)
	shown.hosts = map[int][]loader.HostUse{1: {{Host: netip.MustParsePrefix("192.0.2.1/32"), Bytes: 2000}, {Host: netip.MustParsePrefix("2001:db8::/64"), Bytes: 10}}}
	p.Rules[1].Action.Quota = 1000
	shown.rules[0].Categories, shown.rules[0].DSCPs = map[string]uint64{"": 5, "voip": 15}, map[int]uint64{46: 18, 10: 2}
	shown.rules[1].Rests = true
	if err := shown.print(&out, "eth0"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"rule 1, packets by category: voip 15, undecided 5\n", "rule 1, packets by DSCP: 46 18, 10 2\n", "rule 2, schedule: rests now\n",
		"rule 2, quota: 2 hosts today, 1 beyond it, most: 192.0.2.1 2.0 kB, 2001:db8::/64 10 B\n", "dry run: DROPPED and MARKED count",
		"no policy comes back; to keep this one: dpclass policy confirm eth0\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwithout %q", out.String(), want)
		}
	}
}

// TestMistakesOfModels: of two models on the same task, each mistake says whose it is.
func TestMistakesOfModels(t *testing.T) {
	p, _, err := policy.Parse("p.yaml", []byte("version: 1\nrules:\n  - match: {category: voip}\n    action: {drop: true}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var models []*model.Model
	for name, matrix := range map[string][][]int{"first": {{9, 1}, {0, 10}}, "second": {{10, 0}, {5, 5}}} {
		m := &model.Model{}
		m.Name, m.Confusion = name, map[flow.Task]model.Confusion{flow.Category: {Labels: []string{"voip", "chat"}, Matrix: matrix}}
		models = append(models, m)
	}
	rules := checkedRules(p, misjudged(p, models))
	if len(rules) != 1 || len(rules[0].Mistakes) != 2 {
		t.Fatalf("%+v", rules)
	}
	missed := map[string]int{"first": 1, "second": 0}
	for _, m := range rules[0].Mistakes {
		if want, ok := missed[m.Model]; !ok || len(m.Missed) != want {
			t.Errorf("%+v", m)
		}
	}
}
