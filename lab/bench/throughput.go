// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/lab"
	"github.com/dpclass/dpclass/loader"
)

// ThroughputOptions configures Throughput.
type ThroughputOptions struct {
	Library  string        // path of ONNX Runtime's library; "": search for it
	Models   []string      // names or files; empty: the default
	Modes    []loader.Mode // empty: native and tc
	Rounds   int           // default 11
	Time     time.Duration // length of one iperf3 run, whole seconds; default 1 s
	Progress func(done, total int, what string)
	Log      *slog.Logger
}

// ThroughputResult is one case of `dplab bench throughput`: the rate of one TCP stream
// from the peer, in Gbit/s. Rates are medians over the rounds.
type ThroughputResult struct {
	Mode    string  `json:"mode"`
	Off     float64 `json:"off_gbps"`   // nothing attached
	Empty   float64 `json:"empty_gbps"` // empty programs on both hooks
	On      float64 `json:"on_gbps"`    // dpclass with its agent
	Ratio   float64 `json:"ratio"`      // on / empty
	Best    float64 `json:"best_ratio"` // on / empty, from the fastest run of each
	Rounds  int     `json:"rounds"`
	Load    string  `json:"load"` // load of the machine at the end
	Machine string  `json:"machine"`
}

const iperfPort = 5201

// Throughput measures iperf3 over a veth pair, alternating between nothing attached,
// empty programs and dpclass. It calls each with the result of every mode.
func Throughput(ctx context.Context, o ThroughputOptions, each func(ThroughputResult) error) (err error) {
	if err := checkRoot(); err != nil {
		return err
	}
	if len(o.Modes) == 0 {
		o.Modes = []loader.Mode{loader.Native, loader.TC}
	}
	if o.Rounds <= 0 {
		o.Rounds = 11
	}
	if o.Time <= 0 {
		o.Time = time.Second
	}
	if _, err := lab.FindProgram("iperf3"); err != nil {
		return err
	}
	models, err := model.LoadAll(o.Models)
	if err != nil {
		return err
	}
	engine, err := classifier.New(classifier.Options{Library: o.Library, Models: models})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	w, err := newWire()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := w.watched.IperfServer(ctx, iperfPort); err != nil {
		return err
	}
	// Pin both ends to a CPU: moving between CPUs changes the rate more than any program.
	cpus := ""
	if runtime.NumCPU() > 1 {
		cpus = "1,0"
	}
	run := func() (float64, error) {
		r, err := w.peer.Iperf(ctx, lab.Iperf{Server: watchedAddr, Port: iperfPort, Time: o.Time, CPUs: cpus})
		return r.ReceivedBits / 1e9, err
	}
	kinds := []struct {
		name  string
		begin func(loader.Mode) (stop func() error, err error)
	}{
		{"off", func(loader.Mode) (func() error, error) { return func() error { return nil }, nil }},
		{"empty", w.attachEmpty},
		{"on", func(mode loader.Mode) (func() error, error) {
			_, stop, err := w.serve(ctx, mode, engine, nil, o.Log)
			return stop, err
		}},
	}
	total, done := len(o.Modes)*o.Rounds*len(kinds), 0
	for _, mode := range o.Modes {
		speeds := map[string][]float64{}
		for round := range o.Rounds {
			for n := range kinds {
				kind := kinds[(round+n)%len(kinds)] // rotate, so that no kind is always first
				if o.Progress != nil {
					o.Progress(done, total, fmt.Sprintf("%s, %s", mode, kind.name))
				}
				done++
				speed, err := measured(kind.begin, mode, run)
				if err != nil {
					return fmt.Errorf("mode %s, %s: %w", mode, kind.name, err)
				}
				speeds[kind.name] = append(speeds[kind.name], speed)
			}
		}
		r := ThroughputResult{
			Mode: string(mode), Off: median(speeds["off"]), Empty: median(speeds["empty"]), On: median(speeds["on"]),
			Rounds: o.Rounds, Load: loadAverage(), Machine: Machine(),
		}
		// median has sorted the speeds.
		r.Ratio, r.Best = r.On/r.Empty, speeds["on"][o.Rounds-1]/speeds["empty"][o.Rounds-1]
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func measured(begin func(loader.Mode) (func() error, error), mode loader.Mode, run func() (float64, error)) (speed float64, err error) {
	stop, err := begin(mode)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return run()
}

// attachEmpty attaches empty programs at the hooks that dpclass uses.
func (w *wire) attachEmpty(mode loader.Mode) (stop func() error, err error) {
	var closers []func() error
	stop = func() error {
		var errs []error
		for n := len(closers) - 1; n >= 0; n-- {
			errs = append(errs, closers[n]())
		}
		return errors.Join(errs...)
	}
	err = w.watched.Do(func() error {
		index, err := w.watchedDevice()
		if err != nil {
			return err
		}
		pass, err := empty(ebpf.SchedCLS)
		if err != nil {
			return err
		}
		closers = append(closers, pass.Close)
		attach := []ebpf.AttachType{ebpf.AttachTCXEgress}
		if mode == loader.TC {
			attach = append(attach, ebpf.AttachTCXIngress)
		} else {
			xdp, err := empty(ebpf.XDP)
			if err != nil {
				return err
			}
			closers = append(closers, xdp.Close)
			l, err := link.AttachXDP(link.XDPOptions{Program: xdp, Interface: index, Flags: link.XDPDriverMode})
			if err != nil {
				return fmt.Errorf("attach an empty XDP program: %w", err)
			}
			closers = append(closers, l.Close)
		}
		for _, at := range attach {
			l, err := link.AttachTCX(link.TCXOptions{Program: pass, Attach: at, Interface: index})
			if err != nil {
				return fmt.Errorf("attach an empty tcx program (needs kernel 6.6): %w", err)
			}
			closers = append(closers, l.Close)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

func (w *wire) watchedDevice() (int, error) {
	l, err := w.watched.Link(device)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}
