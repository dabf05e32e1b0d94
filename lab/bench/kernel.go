// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// KernelOptions configures Kernel.
type KernelOptions struct {
	Cases    []string // empty: all of KernelCases
	Rounds   int      // rounds of each case, each with our program and the empty one; default 41
	Progress func(done, total int, what string)
	Log      *slog.Logger
}

// KernelResult is one case of `dplab bench kernel`. Times are nanoseconds for one run of
// the program on one packet, as the kernel measures them: the median of the rounds.
type KernelResult struct {
	Case    string  `json:"case"`
	NS      float64 `json:"ns"`
	EmptyNS float64 `json:"empty_ns"` // an empty program in the same rounds
	AddedNS float64 `json:"added_ns"`
	LeastNS float64 `json:"least_added_ns"` // fastest round of ours minus the fastest round of the empty one
	Rounds  int     `json:"rounds"`
	Repeat  int     `json:"repeat"` // packets in a round
	Machine string  `json:"machine"`
}

// kernelCase is one case: the packet, and the state that it finds in the kernel.
type kernelCase struct {
	name    string
	hook    string // "": ingress, by XDP
	proto   flow.Proto
	src     string // "": IPv4
	payload int
	config  loader.Config
	repeat  int  // packets in a round; 0: 50000
	flows   int  // live flows; 0: one
	decided bool // give each flow an operator's verdict first
	action  *flow.Action
	remark  bool // remove the DSCP mark before each packet
	sampled bool // every packet is sampled
	alone   bool // run only a lookup in our table, not our program
}

// decidedAs is the operator's verdict in the cases with decided flows.
const decidedAs = "voip"

// unpoliced is a rate that the test packets never exceed: 64 bytes at 100 Gbit/s take 5 ns.
const unpoliced = 100e9

func kernelCases() []kernelCase {
	none := flow.Action{DSCP: -1}
	policed, marked := none, none
	policed.Rate, policed.Burst = unpoliced, unpoliced/8/4
	marked.DSCP = 46
	cases := []kernelCase{
		{name: "lookup-alone", proto: flow.TCP, decided: true, alone: true},
		{name: "decided-ipv4-tcp", proto: flow.TCP, decided: true},
		{name: "decided-ipv6-udp", proto: flow.UDP, src: "[fd00::2]:4000", decided: true},
		{name: "policed", proto: flow.TCP, decided: true, action: &policed},
		{name: "dscp", proto: flow.TCP, decided: true, action: &marked, remark: true},
		{name: "undecided", proto: flow.TCP},
		{name: "sampled", proto: flow.TCP, payload: 1440, config: loader.Config{Samples: 255}, repeat: 240, sampled: true},
		{name: "egress-ipv4-tcp", hook: "egress", proto: flow.TCP, decided: true},
	}
	for _, many := range []struct {
		name  string
		flows int
	}{{"flows-1k", 1_000}, {"flows-100k", 100_000}, {"flows-1m", 1_000_000}} {
		cases = append(cases, kernelCase{
			name: many.name, proto: flow.UDP, decided: true, flows: many.flows,
			config: loader.Config{MaxFlows: max(1<<16, uint32(1)<<bits.Len(uint(many.flows-1)))},
			repeat: max(50_000, many.flows/4),
		})
	}
	return cases
}

// KernelCases lists the names of the cases.
func KernelCases() []string {
	var names []string
	for _, c := range kernelCases() {
		names = append(names, c.name)
	}
	return names
}

// Kernel measures how much time the programs add to a packet. Each case has its own
// device in a namespace; test runs of the program attached there alternate with
// test runs of an empty program. Kernel calls each with every result.
func Kernel(ctx context.Context, o KernelOptions, each func(KernelResult) error) (err error) {
	if err := checkRoot(); err != nil {
		return err
	}
	if o.Rounds <= 0 {
		o.Rounds = 41
	}
	var cases []kernelCase
	for _, c := range kernelCases() {
		if len(o.Cases) == 0 || slices.Contains(o.Cases, c.name) {
			cases = append(cases, c)
		}
	}
	w, err := newWire()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	machine := Machine()
	for n := range cases {
		var result KernelResult
		err := w.watched.Do(func() (err error) {
			m := &kernelMeter{case_: &cases[n], rounds: o.Rounds, log: o.Log,
				progress: func() {
					if o.Progress != nil {
						o.Progress(n, len(cases), cases[n].name)
					}
				}}
			result, err = m.measure(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("case %q: %w", cases[n].name, err)
		}
		result.Machine = machine
		if err := each(result); err != nil {
			return err
		}
	}
	return nil
}

// kernelMeter measures one case.
type kernelMeter struct {
	case_    *kernelCase
	rounds   int
	log      *slog.Logger
	progress func()

	iface       *loader.Attachment
	frame       []byte
	src, dst    netip.AddrPort
	ours, empty *ebpf.Program
	plain       *ebpf.Program // the ingress program
}

// program returns the program at a hook of the interface.
func (m *kernelMeter) program(name string) (*ebpf.Program, error) {
	hooks, err := m.iface.Hooks()
	if err != nil {
		return nil, err
	}
	for _, hook := range hooks {
		if hook.Name == name {
			return ebpf.NewProgramFromID(ebpf.ProgramID(hook.ProgID))
		}
	}
	return nil, fmt.Errorf("no program at %s", name)
}

func (m *kernelMeter) measure(ctx context.Context) (result KernelResult, err error) {
	c := m.case_
	m.src, m.dst = netip.MustParseAddrPort("10.1.0.0:4000"), netip.MustParseAddrPort("192.168.0.1:443")
	if c.src != "" {
		m.src, m.dst = netip.MustParseAddrPort(c.src), netip.MustParseAddrPort("[fd00::1]:443")
	}
	m.frame = frame(c.proto, m.src, m.dst, max(c.payload, 18))
	if m.iface, err = loader.Attach(ctx, device, c.config, m.log); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, m.iface.Detach()) }()
	free, err := m.programs()
	defer func() { err = errors.Join(err, free()) }()
	if err != nil {
		return result, err
	}
	if c.action != nil {
		if err := m.iface.Rules().Set(&flow.Policy{Rules: []flow.Rule{{Categories: []string{decidedAs}, Action: *c.action}}}); err != nil {
			return result, err
		}
	}
	if err := m.begin(ctx); err != nil {
		return result, err
	}
	if c.sampled {
		reading, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- m.iface.Ring().Samples(reading, func(*flow.Sample) {}) }()
		defer func() {
			stop()
			err = errors.Join(err, <-done)
		}()
	}
	return m.run(ctx)
}

// programs chooses the programs to run: ours and an empty one. If the case edits the
// packet, both get the same edit first.
func (m *kernelMeter) programs() (free func() error, err error) {
	var closers []func() error
	free = func() error {
		var errs []error
		for _, closer := range closers {
			errs = append(errs, closer())
		}
		return errors.Join(errs...)
	}
	name, kind := m.case_.hook, ebpf.SchedCLS
	if name == "" {
		name, kind = "ingress", ebpf.XDP
	}
	if m.plain, err = m.program("ingress"); err != nil {
		return free, err
	}
	closers = append(closers, m.plain.Close)
	if m.ours, err = m.program(name); err != nil {
		return free, err
	}
	closers = append(closers, m.ours.Close)
	if m.empty, err = empty(kind); err != nil {
		return free, err
	}
	closers = append(closers, m.empty.Close)
	if m.case_.alone {
		flows, err := mapOfGeneral(m.ours, "flows")
		if err != nil {
			return free, err
		}
		closers = append(closers, flows.Close)
		if m.ours, err = lookUp(flows, m.keyBytes()); err != nil {
			return free, err
		}
		closers = append(closers, m.ours.Close)
		return free, nil
	}
	var change edit
	switch {
	case m.case_.flows > 0:
		change = nextSource(m.firstAddress(), m.case_.flows)
	case m.case_.remark:
		change = undoDSCP(m.frame)
	default:
		return free, nil
	}
	for _, program := range []**ebpf.Program{&m.ours, &m.empty} {
		s, err := steer(*program, change)
		if err != nil {
			return free, err
		}
		closers = append(closers, s.Close)
		*program = s.Program
	}
	return free, nil
}

// keyBytes is the flow's key (struct flow_key of bpf/key.h). The source sorts first here.
func (m *kernelMeter) keyBytes() []byte {
	key := append(m.src.Addr().AsSlice(), m.dst.Addr().AsSlice()...)
	key = binary.BigEndian.AppendUint16(key, m.src.Port())
	key = binary.BigEndian.AppendUint16(key, m.dst.Port())
	return append(key, byte(m.case_.proto), 0, 0, 0)
}

func (m *kernelMeter) firstAddress() uint32 {
	a := m.src.Addr().As4()
	return uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
}

// begin creates the flows, and decides them if the case asks for it.
func (m *kernelMeter) begin(ctx context.Context) error {
	if m.case_.flows == 0 {
		// Use up the sample budget, so that only the sampled case samples.
		program := m.ours
		if m.case_.alone {
			program = m.plain
		}
		frames := [][]byte{m.frame}
		if m.case_.decided {
			// Both ends acknowledge the other's numbers, as in every real TCP connection.
			frames = append(frames, frame(m.case_.proto, m.dst, m.src, 18), m.frame)
		}
		for _, f := range frames {
			if _, _, err := program.Benchmark(f, 20, func() {}); err != nil {
				return err
			}
		}
		if m.case_.decided {
			key, _ := flow.MakeKey(m.case_.proto, m.src, m.dst, 0)
			_, err := m.iface.Table().Apply([]flow.Decision{{ID: flow.ID{Key: key}, Verdicts: decided(), Settled: true}})
			return err
		}
		return nil
	}
	// In parts, because the table of undecided flows is smaller than that of decided ones.
	const part = 8192
	for from := 0; from < m.case_.flows; from += part {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.progress()
		n := min(part, m.case_.flows-from)
		if err := m.beginPart(m.plain, from, n); err != nil {
			return err
		}
	}
	return nil
}

func (m *kernelMeter) beginPart(plain *ebpf.Program, from, n int) error {
	s, err := steer(plain, nextSource(m.firstAddress()+uint32(from), n))
	if err != nil {
		return err
	}
	defer s.Close()
	decisions := make([]flow.Decision, n)
	for k := range decisions {
		first := m.firstAddress() + uint32(from+k)
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(first >> 24), byte(first >> 16), byte(first >> 8), byte(first)}), m.src.Port())
		key, _ := flow.MakeKey(m.case_.proto, src, m.dst, 0)
		decisions[k] = flow.Decision{ID: flow.ID{Key: key}, Verdicts: decided(), Settled: true}
	}
	// The table may have dropped some flows before they were decided: send those again.
	for range 10 {
		if _, _, err := s.Benchmark(m.frame, n, func() {}); err != nil {
			return err
		}
		stale, err := m.iface.Table().Apply(decisions)
		if err != nil || stale == 0 {
			return err
		}
	}
	return fmt.Errorf("could not create all flows from %d to %d", from, from+n)
}

func decided() flow.Verdicts {
	return flow.Verdicts{flow.Category: {Label: decidedAs, Confidence: 1, Source: flow.SourceOperator, Final: true}}
}

// run measures. The kernel's counters then show whether the packets really took the
// path that the case is about.
func (m *kernelMeter) run(ctx context.Context) (KernelResult, error) {
	repeat := m.case_.repeat
	if repeat == 0 {
		repeat = 50_000
	}
	before, err := m.iface.Counters()
	if err != nil {
		return KernelResult{}, err
	}
	var ours, none []float64
	for round := range m.rounds + 1 {
		if err := ctx.Err(); err != nil {
			return KernelResult{}, err
		}
		m.progress()
		if m.case_.sampled {
			// Reset the sample budget, and give the ring's reader time.
			if err := m.iface.Table().ResampleAll(); err != nil {
				return KernelResult{}, err
			}
			time.Sleep(3 * time.Millisecond)
		}
		verdict, a, err := m.ours.Benchmark(m.frame, repeat, func() {})
		if err != nil {
			return KernelResult{}, err
		}
		if verdict == xdpDrop {
			return KernelResult{}, errors.New("measurement invalid: packet was dropped")
		}
		_, b, err := m.empty.Benchmark(m.frame, repeat, func() {})
		if err != nil {
			return KernelResult{}, err
		}
		if round > 0 { // the first round warms up
			ours, none = append(ours, float64(a)), append(none, float64(b))
		}
	}
	if err := m.check(before, (m.rounds+1)*repeat); err != nil {
		return KernelResult{}, err
	}
	r := KernelResult{Case: m.case_.name, NS: median(ours), EmptyNS: median(none), LeastNS: ours[0] - none[0], Rounds: m.rounds, Repeat: repeat}
	r.AddedNS = r.NS - r.EmptyNS
	return r, nil
}

func (m *kernelMeter) check(before map[string]uint64, packets int) error {
	after, err := m.iface.Counters()
	if err != nil {
		return err
	}
	want := map[string]uint64{}
	if m.case_.sampled {
		want["sampled"] = uint64(packets)
	}
	for reason, n := range after {
		if n -= before[reason]; n != want[reason] {
			return fmt.Errorf("measurement invalid: %d packets counted as %q, want %d of %d", n, reason, want[reason], packets)
		}
	}
	if m.case_.action != nil {
		_, stats, err := m.iface.Rules().Policy()
		if err != nil {
			return err
		}
		if len(stats) != 1 || stats[0].Packets < uint64(packets) || stats[0].Dropped > 0 ||
			m.case_.remark && stats[0].Marked < uint64(packets) {
			return fmt.Errorf("measurement invalid: %d packets, but the rule counted %+v", packets, stats)
		}
	}
	flows, err := m.iface.Table().Flows()
	if err != nil {
		return err
	}
	var counted uint64
	final := 0
	for n := range flows {
		counted += flows[n].Packets
		if flows[n].Final {
			final++
		}
	}
	wantFinal := 0
	if m.case_.decided {
		wantFinal = max(1, m.case_.flows)
	}
	if m.case_.alone {
		packets = 0
	}
	if final != wantFinal || counted < uint64(packets) {
		return fmt.Errorf("measurement invalid: %d decided flows and %d packets counted, want %d and at least %d", final, counted, wantFinal, packets)
	}
	return nil
}
