// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// LatencyOptions configures Latency.
type LatencyOptions struct {
	Library   string        // path of ONNX Runtime's library; "": search for it
	Models    []string      // names or files; empty: the default
	PerSecond int           // new flows a second; default 500
	Time      time.Duration // how long new flows begin; default 10 s
	Progress  func(done, total int)
	Log       *slog.Logger
}

// LatencyResult is the result of `dplab bench latency`. The time of a flow runs from
// just before the call that sends its first payload packet until its first verdict
// is stored in the kernel's map.
type LatencyResult struct {
	PerSecond float64 `json:"flows_per_s"` // as measured
	Flows     int     `json:"flows"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	Lost      int     `json:"lost"` // flows still without a verdict one second after the last one began
	Samples   uint64  `json:"samples"`
	Mode      string  `json:"mode"`
	Model     string  `json:"model"`
	Load      string  `json:"load"` // load of the machine at the end
	Machine   string  `json:"machine"`
}

const (
	// Every flow has its own port: a reused port would continue the old flow.
	latencyFirstPort = 10000
	// MaxLatencyFlows is the largest number of flows in one run.
	MaxLatencyFlows = 50000
	latencyService  = 7
	lingering       = time.Second // how long a flow stays open
)

// timedWire is a wire whose watched end has an agent and an echo service. It notes how soon
// flows have a verdict.
type timedWire struct {
	*wire
	engine *classifier.Classifier
	iface  *loader.Attachment
	watch  *stopwatch
	undo   []func() error // in the order of what they undo
}

func newTimedWire(ctx context.Context, library string, models []*model.Model, log *slog.Logger) (r *timedWire, err error) {
	r = &timedWire{watch: &stopwatch{begun: map[flow.Key]time.Time{}, took: map[flow.Key]time.Duration{}}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.engine, err = classifier.New(classifier.Options{Library: library, Models: models}); err != nil {
		return r, err
	}
	r.undo = append(r.undo, r.engine.Close)
	if r.wire, err = newWire(); err != nil {
		return r, err
	}
	r.undo = append(r.undo, r.wire.Close)
	ctx, cancel := context.WithCancel(ctx)
	r.undo = append(r.undo, func() error { cancel(); return nil })
	var stop func() error
	if r.iface, stop, err = r.serve(ctx, loader.Auto, r.engine, r.watch.stored, log); err != nil {
		return r, err
	}
	r.undo = append(r.undo, stop)
	return r, r.answer(ctx)
}

// Close stops the services and removes the wire.
func (r *timedWire) Close() error {
	var errs []error
	for _, undo := range slices.Backward(r.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// Latency measures how soon new flows have a verdict. Half of the flows are TCP and
// half UDP, from real sockets over a veth pair; the agent runs as in attach. The
// first payload of each flow is answered, so each flow has two samples.
func Latency(ctx context.Context, o LatencyOptions) (result LatencyResult, err error) {
	if err := checkRoot(); err != nil {
		return result, err
	}
	if o.PerSecond <= 0 {
		o.PerSecond = 500
	}
	if o.Time <= 0 {
		o.Time = 10 * time.Second
	}
	models, err := model.LoadAll(o.Models)
	if err != nil {
		return result, err
	}
	r, err := newTimedWire(ctx, o.Library, models, o.Log)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()

	total := int(o.Time.Seconds() * float64(o.PerSecond))
	began := time.Now()
	var senders sync.WaitGroup
	errs := make([]error, 2)
	for n, proto := range []flow.Proto{flow.UDP, flow.TCP} {
		senders.Add(1)
		go func() {
			defer senders.Done()
			errs[n] = r.peer.Do(func() error {
				return r.watch.send(ctx, proto, n, total, time.Second/time.Duration(o.PerSecond), o.Progress)
			})
		}()
	}
	senders.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return result, err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return result, err
	}
	if result, err = r.watch.result(r.iface); err != nil {
		return result, err
	}
	counts := r.engine.Stats()
	status, err := r.iface.Status()
	if err != nil {
		return result, err
	}
	result.PerSecond = float64(result.Flows) / took.Seconds()
	result.Samples, result.Mode, result.Model = counts.Samples, string(status.Mode), models[0].Name
	result.Load, result.Machine = loadAverage(), Machine()
	return result, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// answer runs a TCP and a UDP echo service on the watched host.
func (w *wire) answer(ctx context.Context) error {
	address := netip.AddrPortFrom(netip.MustParseAddr(watchedAddr), latencyService).String()
	listener, err := w.watched.Listen(ctx, address)
	if err != nil {
		return fmt.Errorf("TCP echo service: %w", err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	packets, err := w.watched.ListenUDP(ctx, address)
	if err != nil {
		return fmt.Errorf("UDP echo service: %w", err)
	}
	context.AfterFunc(ctx, func() { packets.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteToUDPAddrPort(buffer[:n], from)
		}
	}()
	return nil
}

// stopwatch remembers when each flow began and how long its first verdict took.
type stopwatch struct {
	mu    sync.Mutex
	begun map[flow.Key]time.Time
	took  map[flow.Key]time.Duration
}

// stored notes the first verdict of each flow. The agent calls it.
func (s *stopwatch) stored(decisions []flow.Decision) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range decisions {
		key := decisions[n].ID.Key
		begun, ok := s.begun[key]
		if _, again := s.took[key]; ok && !again {
			s.took[key] = now.Sub(begun)
		}
	}
}

// send begins every second flow, starting with number n, at its scheduled time.
func (s *stopwatch) send(ctx context.Context, proto flow.Proto, n, total int, period time.Duration, progress func(done, total int)) error {
	type open struct {
		net.Conn
		since time.Time
	}
	var opened []open
	defer func() {
		for _, conn := range opened {
			conn.Close()
		}
	}()
	payloads := madeUpPayloads(256)
	rng := rand.New(rand.NewPCG(uint64(proto), 7))
	remote := netip.AddrPortFrom(netip.MustParseAddr(watchedAddr), latencyService)
	began := time.Now()
	for ; n < total; n += 2 {
		if err := sleep(ctx, time.Until(began.Add(time.Duration(n)*period))); err != nil {
			return err
		}
		local := netip.AddrPortFrom(netip.MustParseAddr("10.0.1.2"), uint16(latencyFirstPort+n))
		dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(local)}
		if proto == flow.TCP {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
		conn, err := dialer.DialContext(ctx, proto.String(), remote.String())
		if err != nil {
			return fmt.Errorf("flow %d: %w", n, err)
		}
		opened = append(opened, open{conn, time.Now()})
		payload := payloads[rng.IntN(len(payloads))]
		key, _ := flow.MakeKey(proto, local, remote, 0)
		s.mu.Lock()
		s.begun[key] = time.Now()
		s.mu.Unlock()
		if _, err := conn.Write(payload); err != nil {
			return fmt.Errorf("flow %d: %w", n, err)
		}
		for len(opened) > 0 && time.Since(opened[0].since) > lingering {
			opened[0].Close()
			opened = opened[1:]
		}
		if progress != nil {
			progress(n, total)
		}
	}
	return nil
}

// result sums up. A flow counts as lost only if the kernel's maps hold no verdict for
// it either.
func (s *stopwatch) result(iface *loader.Attachment) (LatencyResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var times []time.Duration
	lost := 0
	for key := range s.begun {
		took, ok := s.took[key]
		if ok {
			times = append(times, took)
			continue
		}
		record, err := iface.Table().Lookup(key)
		if err != nil && !errors.Is(err, loader.ErrNoFlow) {
			return LatencyResult{}, err
		}
		if err != nil || record.Category == "" && record.App == "" {
			lost++
		}
	}
	if len(times) == 0 {
		return LatencyResult{}, fmt.Errorf("none of %d flows got a verdict", len(s.begun))
	}
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))]) / float64(time.Millisecond)
	}
	return LatencyResult{Flows: len(s.begun), P50: at(.5), P99: at(.99), Max: at(1), Lost: lost}, nil
}
