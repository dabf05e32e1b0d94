// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
	"github.com/dpclass/dpclass/loader/owner"
)

// processes notes which processes open sockets while an agent runs. What it knows is pinned
// next to the tables of each interface, for dpclass flows. nil: nothing is noted.
type processes struct {
	watch *owner.Watch
	log   *slog.Logger
}

// watchProcesses begins to note processes, and returns how to say what is not known. That it
// cannot is no error: an agent works without.
func watchProcesses(log *slog.Logger) (p *processes, say func()) {
	watch, problem, err := owner.Start()
	switch {
	case err != nil:
		return nil, func() { log.Info("the processes of local flows are not known", "reason", err) }
	case problem != nil:
		say = func() { log.Debug("the processes of some older sockets are not known", "reason", problem) }
	default:
		say = func() {}
	}
	return &processes{watch, log}, say
}

// pin lets others find the processes of an interface. Without processes it removes what an
// agent that was killed has left: others would take it for current.
func (p *processes) pin(iface *loader.Attachment) error {
	if p == nil {
		return owner.RemovePins(iface.Dir())
	}
	if err := p.watch.Pin(iface.Dir()); err != nil {
		p.log.Info("dpclass flows cannot show processes", "iface", iface.Name(), "reason", errors.Join(err, p.watch.Unpin(iface.Dir())))
	}
	return nil
}

// unpin is called before an interface is detached.
func (p *processes) unpin(iface *loader.Attachment) error {
	if p == nil {
		return nil
	}
	return p.watch.Unpin(iface.Dir())
}

func (p *processes) close() error {
	if p == nil {
		return nil
	}
	return p.watch.Close()
}

// sink returns a sink that writes the processes too.
func (p *processes) sink(to agent.Sink) agent.Sink {
	if p == nil {
		return to
	}
	return processSink{to, p.watch.Finder()}
}

// processSink adds the process to records of ended flows.
type processSink struct {
	agent.Sink
	finder *owner.Finder
}

func (s processSink) Write(ctx context.Context, r flow.Record) error {
	setProcess(s.finder, &r)
	return s.Sink.Write(ctx, r)
}

// setProcess fills in the process of a record, if it is known.
func setProcess(finder *owner.Finder, r *flow.Record) {
	proto, ok := flow.ParseProto(r.Proto)
	if finder == nil || !ok {
		return
	}
	process, found := finder.Find(&owner.Flow{
		Proto: proto, Src: netip.AddrPortFrom(r.Src, r.SrcPort), Dst: netip.AddrPortFrom(r.Dst, r.DstPort), First: r.FirstSeen, Last: r.LastSeen,
	})
	if found == owner.Known {
		r.Process = process.Name
	}
}

// openProcesses opens what an agent knows about the processes of an interface: nil if it
// notes none. The calling thread is in the network namespace of the interface.
func openProcesses(iface *loader.Pins) (*owner.Finder, error) {
	finder, err := owner.Open(iface.Dir())
	if errors.Is(err, owner.ErrNoWatch) {
		return nil, nil //nolint:nilnil // no finder is not an error
	}
	if err != nil {
		return nil, fmt.Errorf("processes of %q: %w", iface.Name(), err)
	}
	return finder, nil
}
