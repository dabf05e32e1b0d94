// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// ownLabel is a label of somebody's own, and programs that make traffic of it.
type ownLabel struct {
	name   string
	filter string // of tcpdump
	make   func(ctx context.Context, r *lab.Routed) error
}

var ownLabels = []ownLabel{
	{"web", "tcp port 443", func(ctx context.Context, r *lab.Routed) error {
		web, err := r.Server.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"page": 20 << 10}})
		for i := range 12 {
			if err == nil {
				_, err = r.Client.Run(ctx, "curl", web.CurlArgs([]string{r.ServerAddr4, r.ServerAddr6}[i%2], "page")...)
			}
		}
		return err
	}},
	{"backup", "tcp port 22", func(ctx context.Context, r *lab.Routed) error {
		server, err := r.Server.SSHD(ctx, 22, map[string]int64{"backup.tar": 100 << 10})
		for range 8 {
			if err == nil {
				err = r.Client.SFTP(ctx, server, r.ServerAddr4, "get backup.tar /dev/null")
			}
		}
		return err
	}},
	{"call", "udp", func(ctx context.Context, r *lab.Routed) error {
		var calls []*lab.Call
		var err error
		for i := range 12 {
			var call *lab.Call
			if call, err = callOf(ctx, r, 20000+2*i); err != nil {
				return err
			}
			calls = append(calls, call)
		}
		time.Sleep(300 * time.Millisecond) // 15 packets each way
		for _, call := range calls {
			_, err = call.Stop()
		}
		return err
	}},
	{"stream", "udp", func(ctx context.Context, r *lab.Routed) error {
		if _, err := r.Server.IperfServer(ctx, 5201); err != nil {
			return err
		}
		_, err := r.Client.Iperf(ctx, lab.Iperf{Server: r.ServerAddr4, Port: 5201, UDP: true, Streams: 12, Length: 1200, Time: time.Second})
		return err
	}},
	{"tunnel", "udp port 1194", func(ctx context.Context, r *lab.Routed) error {
		for range 6 {
			tunnel, err := lab.OpenVPN(ctx, r.Client, r.Server, r.ServerAddr4, 1194)
			if err != nil {
				return err
			}
			_ = tunnel.Client.Stop() // ended by a signal
			_ = tunnel.Server.Stop()
		}
		return nil
	}},
}

// callOf starts a call from a port of the client.
func callOf(ctx context.Context, r *lab.Routed, port int) (*lab.Call, error) {
	return lab.StartCall(ctx, r.Client, fmt.Sprintf("%s:%d", r.ClientAddr4, port), r.Server, fmt.Sprintf("%s:%d", r.ServerAddr4, port))
}

// testTrain makes a model out of five captures, with labels that dpclass does not
// know, by the commands of the README, and has it decide live traffic and rule it.
func testTrain(t *testing.T, s *suite) {
	s.needLibrary(t)
	if !haveTrainer() {
		t.Skip(noTrainer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	began := time.Now()
	r := routed(t, lab.Topology{})
	dir := t.TempDir()
	captures := filepath.Join(dir, "captures")
	var names []string
	for _, label := range ownLabels {
		names = append(names, label.name)
		stop := start(t, r.Router, "eth0", label.filter)
		if err := label.make(ctx, r); err != nil {
			t.Fatalf("%s: %v", label.name, err)
		}
		file := stop()
		if err := os.MkdirAll(filepath.Join(captures, label.name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file, filepath.Join(captures, label.name, "lab.pcap")); err != nil {
			t.Fatal(err)
		}
	}

	t.Logf("captures: %.0f s", time.Since(began).Seconds())
	set := filepath.Join(dir, "dataset")
	s.run(t, r.Router, "dataset", "build", "--captures", captures, "--out", set).want(t, cli.ExitDone, names...)
	model := trainModel(ctx, t, set, dir, 12)
	s.run(t, r.Router, "models", "verify", model).want(t, cli.ExitDone, "category")
	s.run(t, r.Router, "models", "show", model).want(t, cli.ExitDone, append(names, "captures")...)
	right, flows := 0, 0
	for _, name := range names {
		out := s.run(t, r.Router, "classify", filepath.Join(captures, name, "lab.pcap"), "--model", model, "-o", "json").want(t, cli.ExitDone).out
		for _, found := range readRecords(t, out) {
			flows++
			if found.Category == name {
				right++
			}
			if found.Category != "" && found.Category != "unknown" && !slices.Contains(names, found.Category) {
				t.Errorf("verdict %q", found.Category)
			}
		}
	}
	t.Logf("classify: %d of %d flows right", right, flows)
	if right < flows*8/10 {
		t.Errorf("classify: %d of %d flows that it was trained on are right", right, flows)
	}

	rules := save(t, "calls.yaml", "version: 1\nrules:\n  - match: {category: call}\n    action: {dscp: EF}\n")
	s.run(t, r.Router, "policy", "check", rules, "--model", model).want(t, cli.ExitDone)
	s.attach(t, r.Router, "eth0", "--model", model, "--policy", rules)
	call, err := callOf(ctx, r, 20100)
	if err != nil {
		t.Fatal(err)
	}
	err = lab.Until(testContext(t), "the call's verdict and rule", func() (bool, error) {
		found := s.flows(t, r.Router, "eth0")[parseKey(t, call.Flow)]
		return found.Category == "call" && found.Model == "mine" && found.Final && found.Live != nil && found.Rule == 1, nil
	})
	if err != nil {
		t.Errorf("%v: %+v", err, s.flows(t, r.Router, "eth0"))
	}
	if _, err := call.Stop(); err != nil {
		t.Error(err)
	}
}

const noTrainer = "SKIPPED, no .venv: make train-deps makes the trainer's environment"

func haveTrainer() bool {
	_, err := os.Stat("../../.venv/bin/python")
	return err == nil
}

// trainModel trains on a dataset and exports the model to dir/mine.onnx, whose path it
// returns.
func trainModel(ctx context.Context, t *testing.T, set, dir string, epochs int) string {
	t.Helper()
	trainer, err := filepath.Abs("../../scripts/dptrain.sh")
	if err != nil {
		t.Fatal(err)
	}
	run, began := filepath.Join(dir, "run"), time.Now()
	for _, args := range [][]string{
		{"train", "default", "--data", set, "--run", run, "--epochs", fmt.Sprint(epochs)},
		{"export", "--data", set, "--run", run, "--name", "mine", "--out", dir},
	} {
		command := exec.CommandContext(ctx, trainer, args...)
		command.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1") // root's files in the user's tree
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
		t.Logf("%s, %.0f s: %s", args[0], time.Since(began).Seconds(), lastLine(string(out)))
	}
	return filepath.Join(dir, "mine.onnx")
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
