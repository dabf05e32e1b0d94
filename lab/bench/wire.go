// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// wire is two hosts with a veth pair between them. The programs are attached to the
// watched host's end.
type wire struct {
	*lab.Lab
	watched, peer *lab.Host
}

const (
	watchedAddr = "10.0.1.1"
	device      = "eth0"
)

// checkRoot is the first check of every benchmark: nothing works without root.
func checkRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("this benchmark creates network namespaces and loads BPF programs: run it as root")
	}
	return nil
}

func newWire() (_ *wire, err error) {
	l, err := lab.New("bench")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := lab.MountBPFFS(); err != nil {
		return nil, err
	}
	w := &wire{Lab: l}
	for _, host := range []struct {
		name string
		to   **lab.Host
	}{{"watched", &w.watched}, {"peer", &w.peer}} {
		made, err := l.Host(host.name)
		if err != nil {
			return nil, err
		}
		// Without IPv6 the hosts send only the bench's own packets.
		if err := made.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
			return nil, err
		}
		*host.to = made
	}
	return w, l.Wire(lab.Wire{
		A: lab.End{Host: w.watched, Iface: device, Addrs: []string{watchedAddr + "/24"}},
		B: lab.End{Host: w.peer, Iface: device, Addrs: []string{"10.0.1.2/24"}},
	})
}

// serve attaches to the watched end and runs an agent on it, as the attach verb does.
// The returned stop function ends the agent and detaches.
func (w *wire) serve(ctx context.Context, mode loader.Mode, engine *classifier.Classifier, stored func([]flow.Decision), log *slog.Logger) (_ *loader.Attachment, stop func() error, err error) {
	var iface *loader.Attachment
	err = w.watched.Do(func() (err error) {
		iface, err = loader.Attach(ctx, device, loader.Config{
			Mode: mode, Samples: engine.Samples(), Labels: model.NewLabels(engine.Models()),
		}, log)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	a := agent.New(agent.Config{Ports: []agent.Port{agent.NewPort(iface)}, Classifier: agent.NewClassifier(engine, nil), Log: log, Stored: stored})
	go func() { done <- a.Run(running) }()
	return iface, func() error {
		cancel()
		return errors.Join(<-done, iface.Detach())
	}, nil
}
