// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/loader"
)

func newStatusCommand(g *cli.Globals) *cobra.Command {
	return &cobra.Command{
		Use:   "status [IFACE]",
		Short: "Show what is attached, and how fast verdicts come",
		Long: `Show an attached interface, or all of them: hooks and mode, model, how full the
tables and the ring are, samples and verdicts per second, batch size, the time
from a packet to its verdict, and counts of packets that could not be handled.
It only reads pinned maps, so it works without an agent.

The exit code is 0 if hooks, policy and model are ready, else 1. "attaching" means that
the agent has not finished its start; an agent that has not reported for five seconds
hangs, or was stopped.`,
		Example:           "  dpclass status\n  dpclass status eth0 -o json | jq .agent.p50_ms\n  until dpclass status eth0 > /dev/null; do sleep .1; done",
		Args:              cli.Between(0, "IFACE"),
		ValidArgsFunction: completeAttached(g, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.InNetns(func() error { return printStatus(cmd.OutOrStdout(), g.JSON(), args) })
		},
	}
}

// errNotReady is the outcome of status if an interface is not ready.
var errNotReady = cli.Quiet("not ready")

// printStatus prints the status of the named interfaces, without a name of all.
func printStatus(out io.Writer, asJSON bool, names []string) error {
	all, err := statuses(names)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		if !asJSON {
			if _, err := fmt.Fprintln(out, "nothing is attached in this network namespace; attach with: dpclass attach IFACE"); err != nil {
				return err
			}
		}
		return errNotReady
	}
	ready := true
	for i, status := range all {
		ready = ready && status.Ready
		if asJSON {
			err = cli.PrintJSON(out, status)
		} else {
			if i > 0 {
				fmt.Fprintln(out)
			}
			_, err = fmt.Fprintln(out, strings.Join(statusText(status, time.Now(), tui.WantColor(out)), "\n"))
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

// statuses reads the status of the named interfaces. Without a name it reads that of all,
// also of those that are gone while their pins are left, or that an agent is attaching.
func statuses(names []string) (all []loader.Status, err error) {
	if len(names) == 0 {
		opened, err := loader.OpenAll()
		for _, iface := range opened {
			status, err1 := iface.Status()
			err = errors.Join(err, err1, iface.Close())
			all = append(all, status)
		}
		if err != nil {
			return nil, err
		}
		attached, err := loader.List()
		if err != nil {
			return nil, err
		}
		for _, name := range attached {
			if !slices.ContainsFunc(all, func(s loader.Status) bool { return s.Iface == name }) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		status, err := readStatus(name)
		if err != nil {
			return nil, err
		}
		all = append(all, status)
	}
	return all, nil
}

// readStatus reads the status of an interface. Of one that an agent is attaching, there is
// only the state.
func readStatus(name string) (status loader.Status, err error) {
	iface, err := open(name)
	if errors.Is(err, loader.ErrAttaching) {
		return loader.Status{Iface: name, State: loader.StateAttaching}, nil
	}
	if err != nil {
		return status, err
	}
	status, err = iface.Status()
	return status, errors.Join(err, iface.Close())
}

// statusText is the status of an interface for people.
func statusText(s loader.Status, now time.Time, color bool) []string {
	head := tui.Cell{Text: "ready", Style: tui.Green}
	switch {
	case s.State == loader.StateAttaching:
		head = tui.Cell{Text: "attaching", Style: tui.Yellow}
	case !s.Ready:
		head = tui.Cell{Text: "not ready", Style: tui.Red}
	}
	lines := []string{tui.Paint(s.Iface, tui.Bold, color) + "  " + tui.Paint(head.Text, head.Style, color)}
	add := func(title, format string, args ...any) {
		lines = append(lines, fmt.Sprintf("  %-9s ", title)+fmt.Sprintf(format, args...))
	}
	if len(s.Hooks) == 0 && s.State == loader.StateAttaching {
		return lines
	}
	filters := ""
	if s.Clsact {
		filters = ", clsact filters instead of tcx"
	}
	add("mode", "%s, driver %s%s", s.Mode, tui.OrNone(s.Driver), filters)
	for _, hook := range s.Hooks {
		state := hook.State
		if state != loader.HookAttached {
			state = tui.Paint(state, tui.Red, color)
		}
		add("hook", "%s %s, program %s (id %d), link %d", hook.Name, state, hook.Program, hook.ProgID, hook.LinkID)
	}
	if s.Loopback {
		add("packets", "%s", loopbackText(&s))
	}
	agentText(add, s, now, color)
	policyLine := "none"
	if s.Rules > 0 {
		policyLine = fmt.Sprintf("%d rules", s.Rules)
	}
	add("policy", "%s", policyLine)
	add("flows", "%s decided, %s pending; %d samples per flow", fill(s.Flows, s.FlowsMax), fill(s.Pending, s.PendingMax), s.Samples)
	if s.Evicted > 0 {
		add("evicted", "%s undecided flows left the full table without a record", tui.Count(s.Evicted))
	}
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

// loopbackText says which of the packets on a loopback device are seen.
func loopbackText(s *loader.Status) string {
	if len(s.Hooks) > 1 {
		return "a loopback device: each is sent and received, and so counts twice"
	}
	return "a loopback device: each is sent and received, and is seen once, at " + s.Hooks[0].Name
}

func agentText(add func(title, format string, args ...any), s loader.Status, now time.Time, color bool) {
	a := s.Agent
	if a == nil {
		text := "not running: flows keep their verdicts, new flows stay undecided"
		if !slices.ContainsFunc(s.Hooks, func(h loader.Hook) bool { return h.State == loader.HookAttached }) {
			text = "not running, and no program is attached: only the tables are left; attach or detach removes them"
		}
		add("agent", "%s", tui.Paint(text, tui.Yellow, color))
		return
	}
	add("agent", "pid %d, up %s", a.PID, tui.Age(now.Sub(a.Started)))
	switch s.State {
	case loader.StateHung:
		add("", "%s", tui.Paint(fmt.Sprintf("it has not reported for %s: it hangs or was stopped (resume it with kill -CONT, or end it: dpclass detach %s)",
			tui.Age(now.Sub(a.Updated)), s.Iface), tui.Red, color))
	case loader.StateEnding:
		add("", "%s", tui.Paint("it is ending", tui.Yellow, color))
	}
	if a.Rights != nil {
		add("sandbox", "%s", sandboxText(a, color))
	}
	defer func() {
		if a.ReloadError != "" {
			add("reload", "%s", tui.Paint("the models were not changed: "+tui.Printable(a.ReloadError), tui.Red, color))
		}
		if a.LastError != "" {
			add("error", "%s", tui.Paint(tui.Printable(a.LastError), tui.Red, color))
		}
	}()
	if !a.Classify {
		add("model", "none (--no-classify)")
		return
	}
	add("model", "%s", strings.Join(a.Model, ", "))
	add("samples", "%.0f/s, %d in all, %d shed", a.SamplesPerSecond, a.Samples, a.Shed)
	add("verdicts", "%.0f/s, %d in all, %.1f samples per batch", a.VerdictsPerSecond, a.Verdicts, a.BatchMean)
	add("latency", "p50 %.2f ms, p99 %.2f ms from packet to verdict", a.P50.Float(), a.P99.Float())
	if a.RingBytes > 0 {
		add("ring", "%.1f %% of %s", 100*float64(a.RingUsed)/float64(a.RingBytes), tui.Bytes(a.RingBytes))
	}
}

// sandboxText says what rights an agent has.
func sandboxText(a *loader.AgentStats, color bool) string {
	r := a.Rights
	if !r.NoNewPrivs {
		return tui.Paint(fmt.Sprintf("none: the agent keeps all rights that it was started with, %d capabilities", len(r.Capabilities)), tui.Yellow, color)
	}
	parts := []string{strings.Join(r.Capabilities, ", "), "no new privileges"}
	if a.Landlock > 0 {
		parts = append(parts, fmt.Sprintf("Landlock %d", a.Landlock))
	} else {
		parts = append(parts, tui.Paint("no Landlock", tui.Yellow, color))
	}
	if r.Seccomp {
		parts = append(parts, "seccomp filter")
	}
	return strings.Join(parts, "; ")
}

// fill shows how full a table is.
func fill(n, limit int) string {
	if limit == 0 {
		return tui.Count(uint64(n))
	}
	return fmt.Sprintf("%d of %d (%.1f %%)", n, limit, 100*float64(n)/float64(limit))
}

// nonZero returns the names of the counters that are not 0, sorted.
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
