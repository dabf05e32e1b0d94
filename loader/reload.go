// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
)

// How long Reload waits for the agent. To open and try a model takes it at most 10 seconds.
const (
	reloadWait = 30 * time.Second
	reloadPoll = 20 * time.Millisecond
)

// Reloaded is an agent that has loaded its models again.
type Reloaded struct {
	PID    int      `json:"pid"`
	Ifaces []string `json:"interfaces"` // those that were asked for
	Model  []string `json:"model"`
}

// Reload makes the agents of attached interfaces load their models again, and waits until
// they have. An agent that serves several interfaces does so once, for all of them. The
// error has the reasons of the agents that kept their models; the others are returned.
func Reload(ctx context.Context, all []*Pins) ([]Reloaded, error) {
	var names, dirs []string
	for _, p := range all {
		names, dirs = append(names, p.name), append(dirs, p.dir)
	}
	return reload(ctx, names, dirs)
}

// ReloadAll is Reload for every agent, in every network namespace.
func ReloadAll(ctx context.Context) ([]Reloaded, error) {
	places, err := defaultRoot().places()
	if err != nil {
		return nil, err
	}
	var names, dirs []string
	for _, p := range places {
		live, err := isLocked(p.dir)
		if err != nil {
			return nil, fmt.Errorf("interface %q: %w", p.name, err)
		}
		if live { // pins without an agent have no models to load
			names, dirs = append(names, p.name), append(dirs, p.dir)
		}
	}
	return reload(ctx, names, dirs)
}

func reload(ctx context.Context, names, dirs []string) (done []Reloaded, err error) {
	var problems []error
	at := map[int]int{}
	var first []string // directory of each agent in done
	for n, dir := range dirs {
		pid, err := reloadable(dir)
		if err != nil {
			problems = append(problems, fmt.Errorf("interface %q: %w", names[n], err))
			continue
		}
		k, known := at[pid]
		if !known {
			k = len(done)
			at[pid] = k
			done, first = append(done, Reloaded{PID: pid}), append(first, dir)
		}
		done[k].Ifaces = append(done[k].Ifaces, names[n])
	}
	var changed []Reloaded
	for n := range done {
		stats, err := reloadAgent(ctx, first[n], done[n].PID)
		if err != nil {
			problems = append(problems, fmt.Errorf("the agent of %s: %w", strings.Join(done[n].Ifaces, ", "), err))
			continue
		}
		done[n].Model = stats.Model
		changed = append(changed, done[n])
	}
	return changed, errors.Join(problems...)
}

// reloadable returns the process id of the live agent of a pin directory, if it can load
// its models again.
func reloadable(dir string) (int, error) {
	live, err := isLocked(dir)
	if err != nil {
		return 0, err
	}
	if !live {
		return 0, fault.New("no agent is running", "start one: dpclass attach; it loads the models that are chosen then")
	}
	stats, err := agentOf(dir)
	switch {
	case err != nil:
		return 0, err
	case stats.isHung(time.Now()):
		return 0, fault.New(fmt.Sprintf("its agent, process %d, hangs or was stopped", stats.PID), "resume it with kill -CONT, or end it with: dpclass detach")
	case !stats.Ready && stats.LastError == "":
		return 0, fault.Advise(ErrAttaching, "try again in a moment")
	case !stats.TakesReload:
		return 0, fault.New(fmt.Sprintf("its agent, process %d, cannot load models while it runs", stats.PID), "end it and attach again")
	}
	return stats.PID, nil
}

// reloadAgent sends the agent of a pin directory the signal, and waits for its report.
func reloadAgent(ctx context.Context, dir string, pid int) (*AgentStats, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadWait, fmt.Errorf("it has not answered for %v", reloadWait))
	defer cancel()
	process := processOf(dir)
	if process.pid != pid {
		process.close()
		return nil, fmt.Errorf("process %d is not the agent, or has ended", pid)
	}
	defer process.close()
	before, err := agentOf(dir)
	if err != nil {
		return nil, err
	}
	if err := process.signal(unix.SIGUSR1); err != nil {
		return nil, err
	}
	poll := time.NewTicker(reloadPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, fault.Advise(fmt.Errorf("process %d: %w", pid, context.Cause(ctx)), `look at "dpclass status": it may hang`)
		}
		now, err := agentOf(dir)
		if err != nil || now.PID != pid {
			return nil, errors.Join(fmt.Errorf("process %d has ended", pid), err)
		}
		// A reload that had begun before the signal may have read the models too early.
		if int32(now.Reloads-before.ReloadsBegun) <= 0 {
			continue
		}
		if now.ReloadError != "" {
			return nil, fault.New("the models were not changed: "+now.ReloadError, "the agent continues with those that it has")
		}
		return now, nil
	}
}
