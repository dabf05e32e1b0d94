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
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// LatencyOptions configures Latency.
type LatencyOptions struct {
	Library   string   // ONNX Runtime's library
	Models    []string // none: the chosen ones
	PerSecond int      // new flows; default 500
	Time      time.Duration
	Progress  func(done, total int)
	Log       *slog.Logger
}

// LatencyResult is the case of `dpclass bench latency`: the time from just before
// the call that sends a flow's first payload packet until its first verdict has
// been stored in the kernel's map.
type LatencyResult struct {
	PerSecond float64 `json:"flows_per_s"` // as they came about
	Flows     int     `json:"flows"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	Lost      int     `json:"lost"` // flows without any verdict a second after the last began
	Samples   uint64  `json:"samples"`
	Mode      string  `json:"mode"`
	Model     string  `json:"model"`
	Load      string  `json:"load"` // of the machine, at the end
	Machine   string  `json:"machine"`
}

const (
	// Every flow has a port of its own: a port that is used again would be the same flow.
	latencyFirstPort = 10000
	// MaxLatencyFlows bounds the flows of one run.
	MaxLatencyFlows = 50000
	latencyService  = 7
	lingering       = time.Second // a flow stays open so long
)

// Latency measures how soon new flows have a verdict: real TCP and UDP sockets
// over a veth pair, half of the flows each, the agent as in attach. Each flow's
// first payload is answered, so that it has two samples.
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
	models, err := classifier.LoadModels(o.Models)
	if err != nil {
		return result, err
	}
	engine, err := classifier.New(classifier.Options{Library: o.Library, Models: models})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	w, err := newWire()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := &stopwatch{begun: map[flow.Key]time.Time{}, took: map[flow.Key]time.Duration{}}
	iface, stop, err := w.serve(ctx, loader.Auto, engine, watch.stored, o.Log)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := w.answer(ctx); err != nil {
		return result, err
	}

	total := int(o.Time.Seconds() * float64(o.PerSecond))
	began := time.Now()
	var senders sync.WaitGroup
	errs := make([]error, 2)
	for n, proto := range []flow.Proto{flow.UDP, flow.TCP} {
		senders.Add(1)
		go func() {
			defer senders.Done()
			errs[n] = w.peer.Do(func() error {
				return watch.send(ctx, proto, n, total, time.Second/time.Duration(o.PerSecond), o.Progress)
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
	if result, err = watch.result(iface); err != nil {
		return result, err
	}
	counts := engine.Stats()
	status, err := iface.Status()
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

// answer serves TCP and UDP on the watched host: what comes goes back.
func (w *wire) answer(ctx context.Context) error {
	address := netip.AddrPortFrom(netip.MustParseAddr(watchedAddr), latencyService).String()
	listener, err := w.watched.Listen(ctx, address)
	if err != nil {
		return fmt.Errorf("TCP service to measure with: %w", err)
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
		return fmt.Errorf("UDP service to measure with: %w", err)
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

// stopwatch holds when flows began and when they had a verdict.
type stopwatch struct {
	mu    sync.Mutex
	begun map[flow.Key]time.Time
	took  map[flow.Key]time.Duration
}

// stored notes the flows' first verdicts; the agent calls it.
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

// send begins every second flow, from the n-th on, each at its time.
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
	payloads := madeUpPackets(256)
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
		payload := payloads[rng.IntN(len(payloads))][ipv4Len+udpLen:]
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

// result sums up. Flows whose first verdict was not seen being stored are looked up in
// the maps before they count as lost.
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
		return LatencyResult{}, fmt.Errorf("none of %d flows had a verdict", len(s.begun))
	}
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))]) / float64(time.Millisecond)
	}
	return LatencyResult{Flows: len(s.begun), P50: at(.5), P99: at(.99), Max: at(1), Lost: lost}, nil
}
