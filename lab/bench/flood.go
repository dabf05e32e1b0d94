// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// FloodOptions configures Flood.
type FloodOptions struct {
	Library   string        // path of ONNX Runtime's library; "": search for it
	Models    []string      // names or files; empty: the default
	Cases     []string      // empty: all of FloodCases
	PerSecond int           // one-packet flows a second of the flood; default 40000
	Flows     int           // legitimate flows a second; default 100
	Time      time.Duration // how long new flows begin in each case; default 10 s
	Progress  func(done, total int, what string)
	Log       *slog.Logger
}

// FloodResult is one case of `dplab bench flood`. Times run from just before the call that
// sends the first payload of a legitimate flow until its first verdict is stored.
type FloodResult struct {
	Case      string            `json:"case"`
	PerSecond float64           `json:"flood_per_s"` // as measured
	Flows     int               `json:"flows"`       // legitimate ones
	Decided   float64           `json:"decided"`     // the share of them with a verdict one second after the last one began
	P50       float64           `json:"p50_ms"`      // of those
	P99       float64           `json:"p99_ms"`
	Shed      uint64            `json:"shed"`    // samples that the classifier had no room for
	Evicted   uint64            `json:"evicted"` // flows that left the full table without a record
	Counters  map[string]uint64 `json:"counters"`
	Model     string            `json:"model"`
	Load      string            `json:"load"` // load of the machine at the end
	Machine   string            `json:"machine"`
}

// FloodCases are the cases of Flood, by the sources of the flood.
func FloodCases() []string { return []string{"none", "many-sources", "one-source"} }

const (
	floodExchanges = 10 // payload packets that a legitimate flow sends; each is answered
	floodEvery     = 50 * time.Millisecond
	// MaxFloodFlows is the largest number of legitimate flows in a case: each has its own port.
	MaxFloodFlows = 20000
)

// Flood measures what happens to legitimate flows while one-packet flows flood the
// interface. The legitimate ones come from real sockets, half of them TCP and half UDP.
// The flood is UDP packets with random payload, from random addresses or from random ports
// of one address. Flood calls each with every result.
func Flood(ctx context.Context, o FloodOptions, each func(FloodResult) error) error {
	if err := checkRoot(); err != nil {
		return err
	}
	def := func(value *int, fallback int) {
		if *value <= 0 {
			*value = fallback
		}
	}
	def(&o.PerSecond, 40000)
	def(&o.Flows, 100)
	if o.Time <= 0 {
		o.Time = 10 * time.Second
	}
	if len(o.Cases) == 0 {
		o.Cases = FloodCases()
	}
	models, err := model.LoadAll(o.Models)
	if err != nil {
		return err
	}
	for n, c := range o.Cases {
		if o.Progress != nil {
			o.Progress(n, len(o.Cases), c)
		}
		result, err := floodCase(ctx, &o, c, models)
		if err != nil {
			return fmt.Errorf("case %q: %w", c, err)
		}
		result.Case, result.Model, result.Load, result.Machine = c, models[0].Name, loadAverage(), Machine()
		if err := each(result); err != nil {
			return err
		}
	}
	return nil
}

// floodCase runs one case, with a network and an agent of its own.
func floodCase(ctx context.Context, o *FloodOptions, name string, models []*model.Model) (result FloodResult, err error) {
	r, err := newTimedWire(ctx, o.Library, models, o.Log)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var flood struct {
		sync.WaitGroup
		sent int
		took time.Duration
		err  error
	}
	flooding, stopFlood := context.WithCancel(ctx)
	defer flood.Wait()
	defer stopFlood()
	if name != "none" {
		flood.Go(func() {
			began := time.Now()
			flood.sent, flood.err = r.flood(flooding, o.PerSecond, name == "one-source")
			flood.took = time.Since(began)
		})
		if err := sleep(ctx, time.Second); err != nil { // until it has its effect
			return result, err
		}
	}
	if err := r.watch.exchange(ctx, r.wire, o); err != nil {
		return result, err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return result, err
	}
	result = r.watch.flooded()
	status, err := r.iface.Status()
	if err != nil {
		return result, err
	}
	stopFlood()
	flood.Wait()
	if flood.err != nil {
		return result, flood.err
	}
	if flood.sent > 0 {
		result.PerSecond = float64(flood.sent) / flood.took.Seconds()
	}
	result.Evicted, result.Counters = status.Evicted, map[string]uint64{}
	for reason, n := range status.Counters {
		if n > 0 {
			result.Counters[reason] = n
		}
	}
	if status.Agent != nil {
		result.Shed = status.Agent.Shed
	}
	return result, nil
}

// exchange begins legitimate flows, each of which sends some payloads and gets them back.
func (s *stopwatch) exchange(ctx context.Context, w *wire, o *FloodOptions) error {
	total := int(o.Time.Seconds() * float64(o.Flows))
	payloads := madeUpPayloads(256)
	remote := netip.AddrPortFrom(netip.MustParseAddr(watchedAddr), latencyService)
	var flows sync.WaitGroup
	errs := make(chan error, total)
	began := time.Now()
	for n := range total {
		if err := sleep(ctx, time.Until(began.Add(time.Duration(n)*time.Second/time.Duration(o.Flows)))); err != nil {
			return err
		}
		flows.Go(func() {
			local := netip.AddrPortFrom(netip.MustParseAddr("10.0.1.2"), uint16(latencyFirstPort+n))
			proto := []flow.Proto{flow.UDP, flow.TCP}[n%2]
			conn, err := w.peer.Dial(ctx, proto.String(), local.String(), remote.String())
			if err != nil {
				errs <- fmt.Errorf("flow %d: %w", n, err)
				return
			}
			defer conn.Close()
			key, _ := flow.MakeKey(proto, local, remote, 0)
			s.mu.Lock()
			s.begun[key] = time.Now()
			s.mu.Unlock()
			for k := range floodExchanges {
				if _, err := conn.Write(payloads[(n+k)%len(payloads)]); err != nil {
					errs <- fmt.Errorf("flow %d: %w", n, err)
					return
				}
				if sleep(ctx, floodEvery) != nil {
					return
				}
			}
		})
	}
	flows.Wait()
	close(errs)
	for err := range errs {
		return err
	}
	return nil
}

// flooded sums up.
func (s *stopwatch) flooded() FloodResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := FloodResult{Flows: len(s.begun), Decided: float64(len(s.took)) / float64(max(1, len(s.begun)))}
	times := make([]time.Duration, 0, len(s.took))
	for _, took := range s.took {
		times = append(times, took)
	}
	if len(times) == 0 {
		return r
	}
	slices.Sort(times)
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))]) / float64(time.Millisecond)
	}
	r.P50, r.P99 = at(.5), at(.99)
	return r
}

// flood sends one-packet flows from the peer until the context ends, and returns how many.
func (w *wire) flood(ctx context.Context, perSecond int, oneSource bool) (sent int, err error) {
	to, err := w.watched.Link(device)
	if err != nil {
		return 0, err
	}
	var socket int
	err = w.peer.Do(func() error {
		from, err := w.peer.Link(device)
		if err != nil {
			return err
		}
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		return unix.Bind(socket, &unix.SockaddrLinklayer{Ifindex: from.Attrs().Index})
	})
	if socket > 0 {
		defer unix.Close(socket)
	}
	if err != nil {
		return 0, err
	}
	frame := packettest.Ethernet(packettest.Spec{Proto: packettest.UDP, Payload: 64, Src: netip.MustParseAddrPort("10.0.1.3:1"), Dst: netip.MustParseAddrPort(watchedAddr + ":1")}.Build().Data)
	copy(frame, to.Attrs().HardwareAddr)
	source, ports, payload := frame[etherLen+12:][:4], frame[etherLen+ipv4Len:][:4], frame[etherLen+ipv4Len+8:]
	frame[etherLen+ipv4Len+6], frame[etherLen+ipv4Len+7] = 0, 0 // no UDP checksum
	rng := rand.New(rand.NewPCG(3, 4))
	began := time.Now()
	for ctx.Err() == nil {
		for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
			if !oneSource {
				binary.BigEndian.PutUint32(source, 10<<24|64<<16|rng.Uint32()&0x3fffff) // 10.64.0.0/10
				setIPv4Checksum(frame[etherLen:][:ipv4Len])
			}
			binary.BigEndian.PutUint32(ports, rng.Uint32()|1<<26|1<<10) // no well-known ones
			for n := 0; n < len(payload); n += 8 {
				binary.LittleEndian.PutUint64(payload[n:], rng.Uint64())
			}
			if err := unix.Send(socket, frame, 0); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return sent, fmt.Errorf("flood: %w", err)
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	return sent, nil
}

// setIPv4Checksum fills in the checksum of an IPv4 header without options.
func setIPv4Checksum(header []byte) {
	header[10], header[11] = 0, 0
	var sum uint32
	for n := 0; n < len(header); n += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[n:]))
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
}
