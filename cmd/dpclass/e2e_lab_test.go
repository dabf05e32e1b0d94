// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/lab/traffic"
)

// mustKnow are programs of a quick run whose protocol says the category by itself.
var mustKnow = []string{"ssh", "xmpp", "wireguard", "openvpn-udp", "openvpn-tcp"}

// filesInSSH are programs that copy files in SSH. Before the files, they do what a login
// does, so dpclass calls them remote by their protocol. They are counted apart.
var filesInSSH = []string{"sftp", "scp", "rsync"}

// filesOverSSH is the line of their flows.
const filesOverSSH = "files in SSH"

// testLab attaches to the router of the traffic lab, and compares the verdicts with what
// the lab knows.
func testLab(t *testing.T, s *suite) {
	s.needLibrary(t)
	out := filepath.Join(t.TempDir(), "traffic")
	verdicts := map[flow.Key]flow.Record{}
	made, err := traffic.Run(t.Context(), traffic.Options{
		Out: out, Quick: true, Seed: 5,
		Log: func(e traffic.Event) {
			switch { // at once, so that a run that ends early shows how far it came
			case e.Again:
				t.Logf("!!! AGAIN, the machine is busy: %s: %v", e.Round, e.Err)
			case e.Err != nil:
				t.Logf("!!! %s: %v", e.Round, e.Err)
			default:
				t.Logf("%s: %d captures in %.0f s", e.Round, len(e.Captures), e.Took.Seconds())
			}
		},
		Ready: func(router *lab.Host) error {
			s.attach(t, router, "eth0")
			return nil
		},
		Done: func(router *lab.Host) error {
			maps.Copy(verdicts, s.flows(t, router, "eth0", "--ended"))
			maps.Copy(verdicts, s.flows(t, router, "eth0"))
			t.Run("Learn", func(t *testing.T) { s.learn(t, router, out) })
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	type score struct{ flows, right int }
	categories, programs := map[string]score{}, map[string]score{}
	for _, c := range made.Captures {
		if c.VPN && c.Category != "vpn-tunnel" {
			continue // inside a tunnel: the router cannot see it
		}
		for _, f := range payloadFlows(t, filepath.Join(out, c.Path)) {
			verdict, seen := verdicts[f.Key]
			if !seen {
				t.Errorf("%s: dpclass has not seen the flow %s", c.Path, f.Key)
			}
			line, want := c.Category, c.Category
			if slices.Contains(filesInSSH, c.Program) {
				line, want = filesOverSSH, "remote"
			}
			right := 0
			if verdict.Category == want {
				right = 1
			}
			n := categories[line]
			categories[line] = score{n.flows + 1, n.right + right}
			n = programs[c.Program]
			programs[c.Program] = score{n.flows + 1, n.right + right}
		}
	}
	ssh := func(program string) bool { return slices.Contains(filesInSSH, program) }
	network := s.recalls(t, out, func(program string) bool { return !ssh(program) })
	if _, any := categories[filesOverSSH]; any {
		network[filesOverSSH] = s.recalls(t, out, ssh)["file-transfer"]
		t.Logf("%s: live, dpclass is right if it says remote; the network alone, if it says file-transfer", filesOverSSH)
	}
	for _, category := range slices.Sorted(maps.Keys(categories)) {
		n := categories[category]
		t.Logf("%-14s %3d flows, recall %.2f live, %.2f by the network alone", category, n.flows, float64(n.right)/float64(n.flows), network[category])
	}
	known := score{}
	for _, program := range mustKnow {
		n := programs[program]
		known = score{known.flows + n.flows, known.right + n.right}
		if n.flows > 0 {
			t.Logf("%-14s %3d flows, recall %.2f live", program, n.flows, float64(n.right)/float64(n.flows))
		}
	}
	if known.flows == 0 || float64(known.right) < .9*float64(known.flows) {
		t.Errorf("%d of %d flows right of programs whose protocol is known (%s), want 90 %%", known.right, known.flows, strings.Join(mustKnow, ", "))
	}
}

// learn is the trainer's smoke test: it makes a model of the lab's captures and attaches it
// to the other side of the router.
func (s *suite) learn(t *testing.T, router *lab.Host, captures string) {
	if !haveTrainer() {
		t.Skip(noTrainer)
	}
	dir := t.TempDir()
	set, manifest := filepath.Join(dir, "dataset"), filepath.Join(captures, "manifest.csv")
	s.run(t, router, "dataset", "build", "--manifest", manifest, "--out", set).want(t, cli.ExitDone, "packets")
	model := trainModel(t.Context(), t, set, dir, 8)
	s.run(t, router, "models", "verify", model).want(t, cli.ExitDone, "category", "app")
	out := s.run(t, router, "eval", "--manifest", manifest, "--model", model, "--task", "category", "--level", "flow", "-o", "json").want(t, cli.ExitDone).out
	var report struct {
		N        int
		Accuracy float64
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	t.Logf("eval: %.2f of the %d flows right, nine in ten of which it has learnt", report.Accuracy, report.N)
	if report.N == 0 || report.Accuracy < .8 {
		t.Errorf("eval: %.2f of the %d flows right that it was trained on, want .8", report.Accuracy, report.N)
	}
	s.attach(t, router, "eth1", "--model", model)
}

// payloadFlows returns the flows of a capture that have payload.
func payloadFlows(t *testing.T, name string) []dataset.Flow {
	t.Helper()
	reader, err := capture.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	for {
		_, err := walker.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return slices.DeleteFunc(slices.Collect(walker.Flows()), func(f dataset.Flow) bool { return f.Payloads == 0 })
}

// recalls returns the recall of each category by the default network alone, in the
// captures of some programs.
func (s *suite) recalls(t *testing.T, dir string, of func(program string) bool) map[string]float64 {
	t.Helper()
	whole, err := os.Open(filepath.Join(dir, "manifest.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	rows, err := csv.NewReader(whole).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := slices.Index(rows[0], "program")
	head := rows[0]
	rows = slices.DeleteFunc(rows[1:], func(row []string) bool { return !of(row[column]) })
	part, err := os.CreateTemp(dir, "manifest-*.csv")
	if err == nil {
		err = csv.NewWriter(part).WriteAll(append([][]string{head}, rows...))
	}
	if err == nil {
		err = part.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	eval := exec.CommandContext(t.Context(), s.binary, "eval", "--manifest", part.Name(), "--task", "category", "--level", "flow", "-o", "json")
	eval.Env = s.env()
	out, err := eval.Output()
	if err != nil {
		t.Fatalf("%v: %v", eval, err)
	}
	var report struct {
		Classes []struct {
			Name   string
			Recall float64
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	recall := map[string]float64{}
	for _, class := range report.Classes {
		recall[class.Name] = class.Recall
	}
	return recall
}
