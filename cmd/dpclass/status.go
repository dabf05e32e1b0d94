// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/loader"
)

func newStatusCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "status [IFACE]",
		Short: "Show hooks, model, counters and how fast verdicts come",
		Long: `Show what is attached to an interface, or to all, and how it is doing: hooks and
mode, model, table and ring fill, samples and verdicts a second, batch size, the
time from a packet to its verdict, and packets that could not be handled, by
reason. It reads pinned maps only and works without an agent.

The exit code is 0 where hooks, policy and model are ready, else 1.`,
		Example:           "  dpclass status\n  dpclass status eth0 -o json | jq .agent.p50_ms\n  until dpclass status eth0 > /dev/null; do sleep .1; done",
		Args:              between(0, "IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return g.withInterfaces(name, func(all []*loader.Pins) error {
				return printStatus(cmd.OutOrStdout(), g.json(), all)
			})
		},
	}
}

// errNotReady is what an interface that is not ready ends status with.
var errNotReady = quietError{errors.New("not ready")}

func printStatus(out io.Writer, asJSON bool, all []*loader.Pins) error {
	if len(all) == 0 {
		if !asJSON {
			if _, err := fmt.Fprintln(out, "nothing is attached in this network namespace; attach with: dpclass attach IFACE"); err != nil {
				return err
			}
		}
		return errNotReady
	}
	ready := true
	for i, iface := range all {
		status, err := iface.Status()
		if err != nil {
			return err
		}
		ready = ready && status.Ready
		if asJSON {
			err = json.NewEncoder(out).Encode(makeStatusLine(status))
		} else {
			if i > 0 {
				fmt.Fprintln(out)
			}
			_, err = fmt.Fprintln(out, strings.Join(statusText(status, time.Now(), wantColor(out)), "\n"))
		}
		if err != nil {
			return err
		}
	}
	if !ready {
		return errNotReady
	}
	return nil
}

// statusLine is the status of an interface as -o json prints it.
type statusLine struct {
	Iface      string            `json:"iface"`
	Netns      string            `json:"netns"` // cookie
	Ready      bool              `json:"ready"`
	Mode       string            `json:"mode"`
	Clsact     bool              `json:"clsact"` // filters in place of tcx
	Driver     string            `json:"driver"`
	Attached   time.Time         `json:"attached"`
	Hooks      []hookLine        `json:"hooks"`
	Samples    int               `json:"samples"`
	Rules      int               `json:"rules"`
	Flows      int               `json:"flows"`
	FlowsMax   int               `json:"flows_max"`
	Pending    int               `json:"pending"`
	PendingMax int               `json:"pending_max"`
	Ended      uint64            `json:"ended"` // flows
	VLAN       bool              `json:"vlan"`
	Counters   map[string]uint64 `json:"counters"`
	Agent      *agentLine        `json:"agent"`
}

type hookLine struct {
	Name    string `json:"name"`
	Program string `json:"program"`
	ProgID  uint32 `json:"prog_id"`
	LinkID  uint32 `json:"link_id"`
	State   string `json:"state"`
}

type agentLine struct {
	PID               int       `json:"pid"`
	Classify          bool      `json:"classify"`
	Ready             bool      `json:"ready"`
	Model             []string  `json:"model"`
	Started           time.Time `json:"started"`
	Updated           time.Time `json:"updated"`
	Samples           uint64    `json:"samples"`
	Verdicts          uint64    `json:"verdicts"`
	Shed              uint64    `json:"shed"`
	Batches           uint64    `json:"batches"`
	SamplesPerSecond  float64   `json:"samples_per_s"`
	VerdictsPerSecond float64   `json:"verdicts_per_s"`
	BatchMean         float64   `json:"batch_mean"`
	P50               float64   `json:"p50_ms"`
	P99               float64   `json:"p99_ms"`
	RingBytes         uint64    `json:"ring_bytes"`
	RingUsed          uint64    `json:"ring_used"`
	LastError         string    `json:"last_error,omitempty"`
}

func makeStatusLine(s loader.Status) statusLine {
	line := statusLine{
		Iface: s.Iface, Netns: s.Netns, Ready: s.Ready, Mode: string(s.Mode), Driver: s.Driver, Samples: s.Samples, Rules: s.Rules,
		Clsact: s.Clsact, Attached: s.Attached, Ended: s.Ended, VLAN: s.VLAN, Flows: s.Flows, FlowsMax: s.FlowsMax, Pending: s.Pending, PendingMax: s.PendingMax, Counters: s.Counters,
	}
	for _, hook := range s.Hooks {
		line.Hooks = append(line.Hooks, hookLine(hook))
	}
	if a := s.Agent; a != nil {
		line.Agent = &agentLine{
			PID: a.PID, Classify: a.Classify, Ready: a.Ready, Model: a.Model, Started: a.Started.UTC(), Updated: a.Updated.UTC(),
			Samples: a.Samples, Verdicts: a.Verdicts, Shed: a.Shed, Batches: a.Batches,
			SamplesPerSecond: a.SamplesPerSecond, VerdictsPerSecond: a.VerdictsPerSecond, BatchMean: a.BatchMean,
			P50: milliseconds(a.P50), P99: milliseconds(a.P99), RingBytes: a.RingBytes, RingUsed: a.RingUsed, LastError: a.LastError,
		}
	}
	return line
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// statusText is the status of an interface for people.
func statusText(s loader.Status, now time.Time, color bool) []string {
	head := cell{"ready", green}
	if !s.Ready {
		head = cell{"not ready", red}
	}
	lines := []string{paint(s.Iface, bold, color) + "  " + paint(head.text, head.style, color)}
	add := func(title, format string, args ...any) {
		lines = append(lines, fmt.Sprintf("  %-9s ", title)+fmt.Sprintf(format, args...))
	}
	filters := ""
	if s.Clsact {
		filters = ", clsact filters in place of tcx"
	}
	add("mode", "%s, driver %s%s", s.Mode, orNone(s.Driver), filters)
	for _, hook := range s.Hooks {
		state := hook.State
		if state != "attached" {
			state = paint(state, red, color)
		}
		add("hook", "%s %s, program %s (id %d), link %d", hook.Name, state, hook.Program, hook.ProgID, hook.LinkID)
	}
	agentText(add, s, now, color)
	policyLine := "none"
	if s.Rules > 0 {
		policyLine = fmt.Sprintf("%d rules", s.Rules)
	}
	add("policy", "%s", policyLine)
	add("flows", "%s decided, %s pending; %d samples a flow", fill(s.Flows, s.FlowsMax), fill(s.Pending, s.PendingMax), s.Samples)
	counters := nonZero(s.Counters)
	if len(counters) == 0 {
		add("counters", "all zero")
	}
	for i, counter := range counters {
		title := "counters"
		if i > 0 {
			title = ""
		}
		add(title, "%-24s %12d", counter, s.Counters[counter])
	}
	return lines
}

func agentText(add func(title, format string, args ...any), s loader.Status, now time.Time, color bool) {
	a := s.Agent
	if a == nil {
		add("agent", "%s", paint("none: flows keep their verdicts, new ones stay undecided", yellow, color))
		return
	}
	add("agent", "pid %d, up %s", a.PID, humanAge(now.Sub(a.Started)))
	if !a.Classify {
		add("model", "none (--no-classify)")
		return
	}
	add("model", "%s", strings.Join(a.Model, ", "))
	add("samples", "%.0f/s, %d in all, %d shed", a.SamplesPerSecond, a.Samples, a.Shed)
	add("verdicts", "%.0f/s, %d in all, %.1f samples a batch", a.VerdictsPerSecond, a.Verdicts, a.BatchMean)
	add("latency", "p50 %.2f ms, p99 %.2f ms from packet to verdict", milliseconds(a.P50), milliseconds(a.P99))
	if a.RingBytes > 0 {
		add("ring", "%.1f %% of %s", 100*float64(a.RingUsed)/float64(a.RingBytes), humanBytes(a.RingBytes))
	}
	if a.LastError != "" {
		add("error", "%s", paint(shorten(a.LastError, 1), red, color))
	}
}

// fill says how full a table is.
func fill(n, limit int) string {
	if limit == 0 {
		return humanCount(uint64(n))
	}
	return fmt.Sprintf("%d of %d (%.1f %%)", n, limit, 100*float64(n)/float64(limit))
}

// nonZero returns the names of the counters that counted, in order.
func nonZero(counters map[string]uint64) []string {
	var names []string
	for name, n := range counters {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
