// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/netns"
	"github.com/dpclass/dpclass/loader"
)

// watched is an interface that dpclass attach serves. It can be lost and attached again.
type watched struct {
	name      string
	config    loader.Config
	apps      []string // see knownApps: in the sandbox, their files cannot be read any more
	log       *slog.Logger
	landlock  int          // version that is in force, see loader.AgentStats
	namespace netns.Handle // of the interface
	netns     string       // its name, "" if --netns was not given
	processes *processes

	mu         sync.Mutex
	attachment *loader.Attachment // nil while the interface is lost
	policy     *flow.Policy       // that was in force when it was lost
}

// serve returns the attached interfaces as ones that can be lost. It runs in their network
// namespace.
func (f *attachFlags) serve(box *sandbox, attached []*loader.Attachment, config loader.Config, apps []string, owners *processes, log *slog.Logger) (all []*watched, err error) {
	for _, a := range attached {
		s := &watched{name: a.Name(), config: config, apps: apps, log: log, netns: box.g.Netns, landlock: box.level, processes: owners, attachment: a, namespace: netns.None()}
		err = errors.Join(err, owners.pin(a))
		all = append(all, s)
		namespace, problem := netns.Current()
		if problem != nil {
			err = errors.Join(err, fmt.Errorf("network namespace: %w", problem))
			continue
		}
		s.namespace = namespace
	}
	return all, err
}

// port returns the interface for the agent. It is attached.
func (s *watched) port() agent.Port {
	p := agent.NewPort(s.attachment)
	p.Lost, p.Release, p.Again = s.lost, s.release, s.again
	publish := p.Publish
	p.Publish = func(stats loader.AgentStats) error {
		stats.Landlock = s.landlock
		return publish(stats)
	}
	return p
}

func (s *watched) lost() (reason, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.netns != "" && !netns.IsNamed(s.namespace, s.netns) {
		return loader.ErrNetnsGone, nil
	}
	return s.attachment.Lost()
}

// tendEvery is how often the agent looks after what a policy does at certain times.
const tendEvery = time.Minute

// tend makes schedules and quotas follow the wall clock if it is set, and the kernel know
// enough of them in advance, until the context ends. Without an agent, the kernel goes by what
// it knows.
func (s *watched) tend(ctx context.Context) {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		var err error
		if s.attachment != nil {
			err = renewSchedule(s.attachment.Pins, s.apps)
		}
		s.mu.Unlock()
		if err != nil {
			s.log.Warn("the policy's schedule could not be renewed", "iface", s.name, "error", err)
		}
	}
}

// renewSchedule applies a policy again if the kernel does not know enough of its schedule. Its
// rules keep their counters and buckets.
func renewSchedule(iface *loader.Pins, apps []string) error {
	if err := iface.Rules().FollowClock(); err != nil {
		return err
	}
	due, err := iface.Rules().ScheduleEnds()
	if err != nil || !due {
		return err
	}
	shown, err := inForce(iface, apps)
	if err != nil || shown.policy == nil || !shown.until.IsZero() {
		return err
	}
	return iface.Rules().Renew(shown.policy, shown.number)
}

// release detaches the interface and keeps the policy for its return.
func (s *watched) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown, err := inForce(s.attachment.Pins, s.apps)
	if err == nil {
		if s.policy = shown.policy; !shown.until.IsZero() {
			s.policy = shown.former // nobody has confirmed the other one
		}
	}
	err = errors.Join(err, s.processes.unpin(s.attachment), s.attachment.Detach())
	s.attachment = nil
	return err
}

// again attaches the interface that has the name now.
func (s *watched) again(ctx context.Context) (port agent.Port, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = netns.In(s.namespace, func() error {
		device, err := net.InterfaceByName(s.name)
		if err != nil || device.Flags&net.FlagUp == 0 {
			return agent.ErrNotYet
		}
		s.attachment, err = loader.Attach(ctx, s.name, s.config, s.log)
		if err != nil {
			return err
		}
		if err := s.processes.pin(s.attachment); err != nil {
			return err
		}
		if s.policy == nil {
			return nil
		}
		if err := s.attachment.Rules().Set(s.policy); err != nil {
			return fmt.Errorf("policy on %q: %w", s.name, err)
		}
		return nil
	})
	if err != nil {
		if s.attachment != nil {
			err = errors.Join(err, s.attachment.Detach())
			s.attachment = nil
		}
		return port, err
	}
	return s.port(), nil
}

// finish detaches the interface, or closes it and leaves it attached.
func (s *watched) finish(persist bool, log *slog.Logger) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.namespace.IsOpen() {
		defer func() { err = errors.Join(err, s.namespace.Close()) }()
	}
	if s.attachment == nil { // lost
		return nil
	}
	unpinned := s.processes.unpin(s.attachment)
	if persist {
		err := errors.Join(unpinned, s.attachment.Close())
		log.Info("the agent ended; programs, flows and policy stay", "iface", s.name)
		return err
	}
	if err := errors.Join(unpinned, s.attachment.Detach()); err != nil {
		return fmt.Errorf("detach %q: %w", s.name, err)
	}
	log.Info("detached", "iface", s.name)
	return nil
}
