// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/internal/bpffs"
	"github.com/dpclass/dpclass/internal/netns"

	"github.com/dpclass/dpclass/flow"
)

// testRoot is the test run's own: other runs and attached agents do not see its pins.
var testRoot = root(filepath.Join(bpffs.Path, "dpclass-test-"+strconv.Itoa(os.Getpid()), "v"+strconv.Itoa(ABI)))

// What the programs return for a packet that they let pass.
const (
	xdpPass = 2
	xdpDrop = 1
	tcNext  = 0xffffffff
	tcShot  = 2
)

const (
	progXDP = bpfProgDpclassXdp
	progIn  = bpfProgDpclassIn
	progOut = bpfProgDpclassOut
)

var programs = []string{progXDP, progIn, progOut}

func directionOf(program string) flow.Direction {
	if program == progOut {
		return flow.Out
	}
	return flow.In
}

// passed and dropped return what a program returns.
func passed(program string) uint32 {
	if program == progXDP {
		return xdpPass
	}
	return tcNext
}

func dropped(program string) uint32 {
	if program == progXDP {
		return xdpDrop
	}
	return tcShot
}

// noFastPath makes all tests take the general way: scripts/test.sh runs them both ways.
var noFastPath = os.Getenv("DPCLASS_NO_FAST_PATH") != ""

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED: loading BPF programs needs root")
	}
}

// kernel is programs and maps without a device: they see the packets that a
// test runs them on, and no others.
type kernel struct {
	*Attachment
	t      testing.TB
	reader *ringbuf.Reader
	record ringbuf.Record
	out    []byte
}

type encap string

const (
	ethernet encap = "ether"
	bare     encap = "none" // frames begin with the IP header
)

func newKernel(t testing.TB, cfg Config, kind encap) *kernel {
	t.Helper()
	needRoot(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	cfg.NoFastPath = cfg.NoFastPath || noFastPath
	if cfg.MaxFlows == 0 {
		cfg.MaxFlows = 1024
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = 1024
	}
	if err := cfg.setDefaults(); err != nil {
		t.Fatal(err)
	}
	a := &Attachment{Pins: &Pins{name: "probe", net: netns.None()}, log: slog.New(slog.DiscardHandler)}
	k := &kernel{Attachment: a, t: t, out: make([]byte, 8192)}
	t.Cleanup(func() {
		if k.reader != nil {
			k.reader.Close()
		}
		if err := a.Close(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.EncapType = "probe", string(kind)
	if err := a.load(&netlink.Dummy{LinkAttrs: attrs}, &cfg, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	if err := a.rules.Clear(); err != nil {
		t.Fatal(err)
	}
	reader, err := ringbuf.NewReader(a.maps.Samples)
	if err != nil {
		t.Fatal(err)
	}
	k.reader = reader
	return k
}

// skb is the part of struct __sk_buff that a test may set.
type skb struct {
	_       [164]byte
	GSOSegs uint32
	_       [8]byte
	GSOSize uint32
	_       [12]byte
}

// run runs a program on a frame and returns its verdict and the frame after it,
// which is valid until the next run.
func (k *kernel) run(program string, frame []byte, context ...*skb) (uint32, []byte) {
	k.t.Helper()
	options := &ebpf.RunOptions{Data: frame, DataOut: k.out}
	if len(context) > 0 {
		options.Context = context[0]
	}
	verdict, err := k.program(program).Run(options)
	if err != nil {
		k.t.Fatalf("run %q on %d bytes: %v", program, len(frame), err)
	}
	return verdict, options.DataOut
}

// program returns a program of the hooks: the fast one, unless Config.NoFastPath.
func (k *kernel) program(name string) *ebpf.Program { return k.programAt(hook{program: name}) }

// pass runs a program on frames that it has to let pass.
func (k *kernel) pass(program string, frames ...[]byte) {
	k.t.Helper()
	for n, frame := range frames {
		if verdict, _ := k.run(program, frame); verdict != passed(program) {
			k.t.Fatalf("frame %d: %q returned %d", n, program, int32(verdict))
		}
	}
}

// sample returns the next record of the ring, nil if there is none.
func (k *kernel) sample() *flow.Sample {
	k.t.Helper()
	k.reader.SetDeadline(time.Unix(1, 0))
	err := k.reader.ReadInto(&k.record)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		k.t.Fatal(err)
	}
	var s flow.Sample
	if !decodeSample(k.record.RawSample, &s) {
		k.t.Fatalf("record of %d bytes is no sample", len(k.record.RawSample))
	}
	return &s
}

// samples empties the ring and returns how many samples were in it.
func (k *kernel) samples() int {
	k.t.Helper()
	n := 0
	for k.sample() != nil {
		n++
	}
	return n
}

// flow returns the flow with a key.
func (k *kernel) flow(key flow.Key) flow.Record {
	k.t.Helper()
	r, err := k.table.Lookup(key)
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

// entry returns the table entry of a flow with what its lines have counted, and whether it is decided.
func (k *kernel) entry(key flow.Key) (f bpfFlow, decided bool) {
	k.t.Helper()
	e := entry{key: key}
	e.flow, decided = k.rawEntry(key)
	if err := k.table.lines.add(&e); err != nil {
		k.t.Fatal(err)
	}
	return e.flow, decided
}

// rawEntry returns the table entry of a flow, and whether it is decided.
func (k *kernel) rawEntry(key flow.Key) (f bpfFlow, decided bool) {
	k.t.Helper()
	wide, family := wideKey(key)
	var mapKey any = wide
	decidedMap, pending := k.maps.Flows6, k.maps.Pending6
	if family == 4 {
		mapKey = narrowKey(key)
		decidedMap, pending = k.maps.Flows, k.maps.Pending
	}
	if decidedMap.Lookup(mapKey, &f) == nil {
		return f, true
	}
	if err := pending.Lookup(mapKey, &f); err != nil {
		k.t.Fatalf("flow %q: %v", key, err)
	}
	return f, false
}

// age makes the flow's last packet that much older.
func (k *kernel) age(key flow.Key, by time.Duration) {
	k.t.Helper()
	f, decided := k.rawEntry(key)
	k.ageLines(key, f.Line, by)
	f.LastJiffies -= uint64(by) / k.table.tick
	wide, family := wideKey(key)
	var mapKey any = wide
	decidedMap, pending := k.maps.Flows6, k.maps.Pending6
	if family == 4 {
		mapKey = narrowKey(key)
		decidedMap, pending = k.maps.Flows, k.maps.Pending
	}
	if decided {
		pending = decidedMap
	}
	if err := pending.Put(mapKey, &f); err != nil {
		k.t.Fatal(err)
	}
}

// ageLines makes the last packets of the lines at a place that much older.
func (k *kernel) ageLines(key flow.Key, place uint32, by time.Duration) {
	k.t.Helper()
	for _, m := range []*ebpf.Map{k.maps.LinesIn, k.maps.LinesOut} {
		if place == 0 || key.Is6() {
			continue
		}
		var line bpfLine4
		err := m.Lookup(place, &line)
		line.Head.Last -= uint32(uint64(by) / k.table.tick)
		if err = errors.Join(err, m.Put(place, &line)); err != nil {
			k.t.Fatal(err)
		}
	}
	for _, m := range []*ebpf.Map{k.maps.Lines6In, k.maps.Lines6Out} {
		if place == 0 || !key.Is6() {
			continue
		}
		var line bpfLine6
		err := m.Lookup(place, &line)
		line.Head.Last -= uint32(uint64(by) / k.table.tick)
		if err = errors.Join(err, m.Put(place, &line)); err != nil {
			k.t.Fatal(err)
		}
	}
}

// evicted returns how many flows left a full table without a record.
func (k *kernel) evicted() uint64 {
	k.t.Helper()
	born, err := k.table.born()
	if err != nil {
		k.t.Fatal(err)
	}
	entries, err := k.table.read()
	if err != nil {
		k.t.Fatal(err)
	}
	n, err := k.table.evicted(born, entries)
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

func (k *kernel) flows() []flow.Record {
	k.t.Helper()
	all, err := k.table.Flows()
	if err != nil {
		k.t.Fatal(err)
	}
	k.sameEach(all)
	return all
}

// sameEach checks that Each hands out the flows that Flows returns.
func (k *kernel) sameEach(all []flow.Record) {
	k.t.Helper()
	type part struct {
		key        flow.Key
		generation uint32
	}
	packets := map[part]uint64{}
	for i := range all {
		packets[part{all[i].Key(), all[i].Generation}] += all[i].Packets
	}
	err := k.table.Each(func(r *flow.Record) bool {
		packets[part{r.Key(), r.Generation}] -= r.Packets
		return true
	})
	for of, left := range packets {
		if left != 0 {
			k.t.Errorf("Each and Flows differ by %d packets of %+v", int64(left), of)
		}
	}
	n := 0
	err = errors.Join(err, k.table.Each(func(*flow.Record) bool {
		n++
		return false
	}))
	if err != nil || n != min(1, len(all)) {
		k.t.Errorf("Each was not ended: %d flows, %v", n, err)
	}
}

func (k *kernel) ended() []flow.Record {
	k.t.Helper()
	all, err := k.table.Ended()
	if err != nil {
		k.t.Fatal(err)
	}
	return all
}

func (k *kernel) sweep() []flow.Record {
	k.t.Helper()
	ended, err := k.table.Sweep()
	if err != nil {
		k.t.Fatal(err)
	}
	return ended
}

func (k *kernel) counters() map[string]uint64 {
	k.t.Helper()
	counters, err := k.Counters()
	if err != nil {
		k.t.Fatal(err)
	}
	return counters
}

// id returns the flow's present life.
func (k *kernel) id(key flow.Key) flow.ID {
	k.t.Helper()
	return flow.ID{Key: key, Generation: k.flow(key).Generation}
}

// eventually waits for something that time brings.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("%s: not within 10 s", what)
}

// checksum is the Internet checksum over data: 0 if the checksum in it is right.
func checksum(data []byte) uint16 {
	var sum uint32
	for n := 0; n+1 < len(data); n += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[n:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
