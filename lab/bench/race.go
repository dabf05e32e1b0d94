// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
	"github.com/dpclass/dpclass/loader"
)

// RaceOptions configures Race.
type RaceOptions struct {
	Duration   time.Duration // default 60 s
	NoFastPath bool
	Delays     bool // hold some packets up where others may come between
	Progress   func(done time.Duration)
	Log        *slog.Logger
}

// RaceResult is what Race did.
type RaceResult struct {
	Seconds  float64 `json:"seconds"`
	Packets  uint64  `json:"packets"`
	Verdicts int     `json:"verdicts"` // stored
	Policies int     `json:"policies"` // applied
	Lives    int     `json:"lives"`    // of the flows: each ends with a record
	Windows  int     `json:"windows"`  // times in which nothing changed, and the counts were compared
	Compared int     `json:"compared"` // flows in these windows
	Late     uint64  `json:"late"`     // packets that came while the record of their flow was written
	Machine  string  `json:"machine"`
}

const (
	raceFlows = 16
	// raceIdle ends TCP flows: on two CPUs the next packets of a flow come within a few ms,
	// most of the time. UDP flows do not end.
	raceIdle = 50 * time.Millisecond
)

// raceFlow is a flow of the race. Each has packets of its own length: a packet that
// is counted as another flow's shows.
type raceFlow struct {
	key      flow.Key
	frames   [2][]byte // received, sent
	restart  [2][]byte // TCP: RST and SYN
	length   uint64    // IP bytes of each packet
	injected atomic.Uint64
	again    atomic.Uint64 // at most so many more: a signal of Go's runtime makes the kernel begin a run of packets again
}

// race is the state of a Race.
type race struct {
	iface   *loader.Attachment
	flows   []*raceFlow
	byKey   map[flow.Key]*raceFlow
	counted map[*raceFlow]uint64 // packets, by the records of ended flows
	running sync.RWMutex         // packets run while it is read-locked
	rng     *rand.Rand
	dropped string // the category that the policy drops
	result  RaceResult
}

// Race sends packets of a few flows through the programs on two CPUs, at times both of the
// same flow, while flows are decided, get other verdicts and end, and policies change. It
// fails if a packet is counted as another flow's, a packet is lost, or a rule acts on
// a flow that is not its flow any more.
func Race(ctx context.Context, o RaceOptions) (result RaceResult, err error) {
	if err := checkRoot(); err != nil {
		return result, err
	}
	if o.Duration <= 0 {
		o.Duration = time.Minute
	}
	w, err := newWire()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	err = w.watched.Do(func() (err error) {
		idle := loader.Timeouts{TCPOpening: raceIdle, TCPEstablished: raceIdle, Ended: 1}
		config := loader.Config{MaxFlows: raceFlows * 2, MaxPending: 1024, Samples: -1, Timeouts: idle, NoFastPath: o.NoFastPath, Delays: o.Delays}
		iface, err := loader.Attach(ctx, device, config, o.Log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, iface.Detach()) }()
		r := &race{iface: iface, byKey: map[flow.Key]*raceFlow{}, counted: map[*raceFlow]uint64{}, rng: rand.New(rand.NewPCG(1, 2))}
		r.makeFlows()
		if err := r.run(ctx, &o); err != nil {
			return err
		}
		result = r.result
		return nil
	})
	result.Machine = Machine()
	return result, err
}

func (r *race) makeFlows() {
	for n := range raceFlows {
		proto, port := flow.TCP, uint16(4000+n)
		if n%3 == 2 {
			proto = flow.UDP
		}
		src, dst := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), netip.MustParseAddrPort("192.168.0.1:443")
		if n%4 == 3 {
			src, dst = netip.AddrPortFrom(netip.MustParseAddr("fd00::2"), port), netip.MustParseAddrPort("[fd00::1]:443")
		}
		f := &raceFlow{}
		f.key, _ = flow.MakeKey(proto, src, dst, 0)
		f.frames = [2][]byte{frame(proto, src, dst, 20+n), frame(proto, dst, src, 20+n)}
		f.length = uint64(len(f.frames[0]) - etherLen)
		for k, flags := range []uint8{rstFlag, synFlag} {
			spec := packettest.Spec{IPv6: src.Addr().Is6(), Proto: uint8(proto), Src: src, Dst: dst, Payload: 20 + n, TCPFlags: flags}
			f.restart[k] = packettest.Ethernet(spec.Build().Data)
		}
		r.flows = append(r.flows, f)
		r.byKey[f.key] = f
	}
}

// TCP flags (RFC 9293, section 3.1).
const (
	synFlag = 2
	rstFlag = 4
)

// raceLabels are the verdicts of the race. The policy drops the one or the other.
var raceLabels = [2]string{"voip", "chat"}

func (r *race) run(ctx context.Context, o *RaceOptions) (err error) {
	programs, free, err := r.programs()
	defer func() { err = errors.Join(err, free()) }()
	if err != nil {
		return err
	}
	if err := r.changePolicy(); err != nil {
		return err
	}
	var stop atomic.Bool
	var senders sync.WaitGroup
	failed := make(chan error, 2)
	for cpu := range 2 {
		senders.Go(func() {
			if err := r.send(cpu, programs, &stop); err != nil {
				failed <- err
			}
		})
	}
	begin := time.Now()
	for time.Since(begin) < o.Duration && err == nil {
		select {
		case err = <-failed:
		case <-ctx.Done():
			err = ctx.Err()
		default:
			err = r.change()
		}
		if o.Progress != nil {
			o.Progress(time.Since(begin))
		}
	}
	stop.Store(true)
	senders.Wait()
	r.result.Seconds = time.Since(begin).Seconds()
	if err != nil {
		return err
	}
	return r.account()
}

// programs returns the programs of the interface: for received and for sent packets.
func (r *race) programs() (programs [2]*ebpf.Program, free func() error, err error) {
	free = func() error {
		var errs []error
		for _, p := range programs {
			if p != nil {
				errs = append(errs, p.Close())
			}
		}
		return errors.Join(errs...)
	}
	m := &kernelMeter{iface: r.iface}
	for n, hook := range []string{"ingress", "egress"} {
		if programs[n], err = m.program(hook); err != nil {
			return programs, free, err
		}
	}
	return programs, free, nil
}

// send runs packets on one CPU until it is stopped.
func (r *race) send(cpu int, programs [2]*ebpf.Program, stop *atomic.Bool) error {
	runtime.LockOSThread() // and the thread ends with the goroutine
	var set unix.CPUSet
	set.Set(cpu % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("CPU %d: %w", cpu, err)
	}
	rng := rand.New(rand.NewPCG(uint64(cpu), 3))
	for !stop.Load() {
		f, direction, n := r.flows[rng.IntN(len(r.flows))], 0, 1+rng.IntN(200)
		if rng.IntN(3) == 0 {
			direction = 1
		}
		frames := [][]byte{f.frames[direction]}
		if f.key.Proto == flow.TCP && rng.IntN(8) == 0 {
			frames, direction, n = f.restart[:], 0, 1
		}
		for _, frame := range frames {
			r.running.RLock()
			_, _, err := programs[direction].Benchmark(frame, n, func() { f.again.Add(uint64(n)) })
			f.injected.Add(uint64(n))
			r.running.RUnlock()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// change changes something while packets run.
func (r *race) change() error {
	for range 4 {
		var decisions []flow.Decision
		for range raceFlows {
			decisions = append(decisions, r.flows[r.rng.IntN(len(r.flows))].decision(raceLabels[r.rng.IntN(2)]))
		}
		stale, err := r.iface.Table().Apply(decisions)
		if err != nil {
			return err
		}
		r.result.Verdicts += len(decisions) - stale
	}
	if r.rng.IntN(8) == 0 {
		if err := r.changePolicy(); err != nil {
			return err
		}
	}
	if r.rng.IntN(3) == 0 {
		if err := r.compare(); err != nil {
			return err
		}
	}
	return r.sweep()
}

func (f *raceFlow) decision(label string) flow.Decision {
	v := flow.Verdicts{flow.Category: {Label: label, Confidence: 1, Source: flow.SourceOperator, Final: true}}
	return flow.Decision{ID: flow.ID{Key: f.key}, Verdicts: v, Settled: true}
}

// changePolicy drops the other category.
func (r *race) changePolicy() error {
	r.dropped = raceLabels[r.rng.IntN(2)]
	r.result.Policies++
	drop := flow.Rule{Categories: []string{r.dropped}, OneSided: true, Midstream: true, Action: flow.Action{Drop: true, DSCP: -1}}
	police := flow.Rule{Action: flow.Action{DSCP: -1, Rate: unpoliced, Burst: unpoliced / 8 / 4}}
	return r.iface.Rules().Set(&flow.Policy{Rules: []flow.Rule{drop, police}})
}

// sweep does what an agent does once a second, and adds up the records.
func (r *race) sweep() error {
	records, err := r.iface.Table().Sweep()
	if err != nil {
		return err
	}
	for n := range records {
		if err := r.checkRecord(&records[n]); err != nil {
			return err
		}
		r.counted[r.byKey[records[n].Key()]] += records[n].Packets
		r.result.Lives++
	}
	return nil
}

// checkRecord checks that all packets of a record are its flow's. The record of a flow that ends is
// written while packets are counted: the thread that writes it may lose its CPU between packets and
// bytes, so they agree only where nothing runs (snapshot).
func (r *race) checkRecord(record *flow.Record) error {
	f := r.byKey[record.Key()]
	if f == nil {
		return fmt.Errorf("a record of no flow: %v", record.Key())
	}
	if record.Bytes%f.length != 0 || record.DroppedBytes%f.length != 0 {
		return fmt.Errorf("flow %v has packets of %d bytes only: counted %d packets with %d bytes, dropped %d with %d",
			f.key, f.length, record.Packets, record.Bytes, record.Dropped, record.DroppedBytes)
	}
	return nil
}

// fits reports whether so many bytes can be those of the flow's packets, where nothing runs. A packet
// that was counted when its flow's entry was used again has one of its two counts in the entry before:
// that may be one packet of each CPU.
func (f *raceFlow) fits(packets, bytes uint64) bool {
	return bytes/f.length <= packets+2 && packets <= bytes/f.length+2
}

// sent is how many packets of a flow were sent, and at most how many more.
type sent struct{ packets, again uint64 }

func (f *raceFlow) sent() sent { return sent{f.injected.Load(), f.again.Load()} }

// snapshot returns the flows, and how many packets of each were sent, while none runs.
func (r *race) snapshot() (records map[*raceFlow]flow.Record, injected map[*raceFlow]sent, err error) {
	records, injected = map[*raceFlow]flow.Record{}, map[*raceFlow]sent{}
	r.running.Lock()
	defer r.running.Unlock()
	all, err := r.iface.Table().Flows()
	if err != nil {
		return nil, nil, err
	}
	for n := range all {
		if err := r.checkRecord(&all[n]); err != nil {
			return nil, nil, err
		}
		f := r.byKey[all[n].Key()]
		if a := &all[n]; a.Ended == "" && !(f.fits(a.Packets, a.Bytes) && f.fits(a.Dropped, a.DroppedBytes)) {
			return nil, nil, fmt.Errorf("flow %v has packets of %d bytes only: counted %d packets with %d bytes, dropped %d with %d",
				f.key, f.length, a.Packets, a.Bytes, a.Dropped, a.DroppedBytes)
		}
		records[f], injected[f] = all[n], f.sent()
	}
	return records, injected, nil
}

// compare lets packets run while nothing changes: the counts of each flow grow by what was
// sent, and the policy acts on all of its packets or on none.
func (r *race) compare() error {
	before, sentBefore, err := r.snapshot()
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Millisecond)
	after, sentAfter, err := r.snapshot()
	if err != nil {
		return err
	}
	r.result.Windows++
	for f, b := range before {
		a, same := after[f]
		if !same || a.Generation != b.Generation || b.CategorySource != flow.SourceOperator.String() || b.Ended != "" {
			continue
		}
		packets, dropped, sent := a.Packets-b.Packets, a.Dropped-b.Dropped, sentAfter[f].packets-sentBefore[f].packets
		if packets < sent || packets > sent+sentAfter[f].again-sentBefore[f].again {
			return fmt.Errorf("flow %v: %d packets were sent, %d counted", f.key, sent, packets)
		}
		want := uint64(0)
		if b.Category == r.dropped {
			want = packets
		}
		if dropped != want {
			return fmt.Errorf("flow %v is %s, the policy drops %s: of %d packets %d were dropped", f.key, b.Category, r.dropped, packets, dropped)
		}
		if packets > 0 {
			r.result.Compared++
		}
	}
	return nil
}

// account compares what was sent with what was counted in all lives of each flow. A packet
// that is on its way while another one ends its flow may come too late for the record. The bench
// runs the programs in threads, which may lose their CPU in between (in a driver they cannot), and then
// thousands come too late: so there is only a coarse limit. UDP flows do not end, and lose none.
func (r *race) account() error {
	if err := r.sweep(); err != nil {
		return err
	}
	live, _, err := r.snapshot()
	if err != nil {
		return err
	}
	ended, err := r.iface.Table().Ended()
	if err != nil {
		return err
	}
	reported := map[uint32]bool{}
	for n := range ended {
		reported[ended[n].Generation] = true
	}
	for f, record := range live {
		if !reported[record.Generation] {
			r.counted[f] += record.Packets
		}
	}
	for _, f := range r.flows {
		sent, counted := f.sent(), r.counted[f]
		r.result.Packets += sent.packets
		if counted > sent.packets+sent.again {
			return fmt.Errorf("flow %v: %d packets were sent, %d counted", f.key, sent.packets, counted)
		}
		if counted < sent.packets && f.key.Proto == flow.UDP {
			return fmt.Errorf("flow %v: %d packets were sent, %d counted, though it never ended", f.key, sent.packets, counted)
		}
		r.result.Late += sent.packets - min(counted, sent.packets)
	}
	if r.result.Late > r.result.Packets/4 {
		return fmt.Errorf("%d of %d packets were lost from the records of %d lives", r.result.Late, r.result.Packets, r.result.Lives)
	}
	return nil
}
