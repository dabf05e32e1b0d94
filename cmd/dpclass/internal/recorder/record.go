// SPDX-License-Identifier: Apache-2.0

// Package recorder captures the packets of an interface into one file for each label, which
// the kernel, through the process that opened a flow's socket, or the flow's server name
// gives.
package recorder

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/classifier/addressbook"
	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/classifier/wire"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/loader/owner"
)

// Config says what to record.
type Config struct {
	Iface string
	Out   string // directory
	By    By
	Map   *Map
	Task  flow.Task // of the labels
	Names *names.Catalogue

	Snap     int           // bytes of a frame to keep; 0: all
	Packets  int           // packets of a flow to keep; 0: all
	MaxSize  int64         // bytes to write in all; 0: no limit
	Duration time.Duration // 0: no limit
	Other    bool          // list flows without a label in the manifest

	Log      *slog.Logger
	Started  func()         // called once packets are recorded; may be nil
	Progress func(*Summary) // called several times a second; may be nil
}

// Summary is what a run has done, and the JSON of "dpclass record".
type Summary struct {
	Iface    string  `json:"iface"`
	Out      string  `json:"out"`
	By       By      `json:"by"`
	Stopped  string  `json:"stopped"` // interrupted, duration, size, disk-full, interface-gone
	Seconds  float64 `json:"seconds"`
	Flows    int     `json:"flows"`
	Packets  int     `json:"packets"` // written, as on the wire
	Bytes    int64   `json:"bytes"`   // written to captures
	Unknown  int     `json:"unknown"` // flows without a label
	LeftOut  int     `json:"left_out"`
	Beyond   int     `json:"beyond"` // packets after the first ones of their flow
	NoFlow   int     `json:"no_flow"`
	Shed     int     `json:"shed"`     // packets that did not fit into memory while their label was not known
	Refused  int     `json:"refused"`  // packets of flows beyond those that can be remembered
	Received uint64  `json:"received"` // by the kernel for this capture
	Lost     uint64  `json:"lost"`     // of these, because they were not read in time
	Labels   []Label `json:"labels"`

	open int
}

// Label is a capture of a run.
type Label struct {
	Label    string   `json:"label"`
	Path     string   `json:"path"`
	Flows    int      `json:"flows"`
	Packets  int      `json:"packets"`
	Bytes    int64    `json:"bytes"`
	Programs []string `json:"programs"` // processes, cgroups or server names
}

// Bounds of what is kept in memory.
const (
	maxFlows   = 1 << 18
	maxLabels  = 4096
	maxHeld    = 64 << 20 // bytes of packets whose label is not known yet
	maxHeldOne = 4 << 20  // of one flow

	// A flow that is idle, or that has ended, is forgotten after this time.
	idleFor  = 5 * time.Minute
	endedFor = time.Minute

	holdProcess = time.Second      // how long a flow may wait for its process
	holdName    = 10 * time.Second // how long a flow may wait for its server name
	askEvery    = 20 * time.Millisecond
	tick        = 100 * time.Millisecond
	writeEvery  = time.Second
	listEvery   = 10 * time.Second // the manifest
)

// tracked is a flow.
type tracked struct {
	key         flow.Key
	src, dst    netip.AddrPort // of the first packet
	first, last time.Time
	asked       time.Time
	label       *label // nil: waits for its label, or is left out
	out         bool
	kept        int
	payload     bool // it has a packet that a model can read
	ended       bool
	held        []heldFrame
	heldBytes   int
	wire        *wire.Flow
	server      netip.AddrPort
}

// heldFrame is a packet that waits for its label.
type heldFrame struct {
	at     time.Time
	data   []byte
	length int
	body   bool // a model can read it
}

// recorder is a run.
type recorder struct {
	Config
	device  netlink.Link
	ring    *ring
	files   *files
	watch   *owner.Watch
	cgroups owner.Cgroups
	book    *addressbook.Book
	flows   map[flow.Key]*tracked
	waiting []*tracked
	held    int // bytes
	sum     Summary
	cut     []byte // scratch
	parts   map[fragment]*tracked
}

// fragment names a datagram of which later fragments may come: they have no ports.
type fragment struct {
	src, dst netip.Addr
	id       uint32
}

// maxFragments bounds the datagrams that are remembered.
const maxFragments = 1024

// Run records until the context ends or a limit is reached. It is called in the network
// namespace of the interface. The summary is complete also when there is an error, unless it
// is nil.
func Run(ctx context.Context, config Config) (_ *Summary, err error) {
	r := &recorder{Config: config, flows: map[flow.Key]*tracked{}, parts: map[fragment]*tracked{}}
	if r.device, err = netlink.LinkByName(r.Iface); err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil, fault.Advise(fmt.Errorf("interface %q does not exist", r.Iface), "list the interfaces: ip link")
		}
		return nil, fmt.Errorf("interface %q: %w", r.Iface, err)
	}
	if r.device.Attrs().Flags&net.FlagUp == 0 {
		return nil, fault.Advise(fmt.Errorf("interface %q is down", r.Iface), "set it up: ip link set %s up", r.Iface)
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	if r.Started != nil {
		r.Started()
	}
	began := time.Now()
	r.sum = Summary{Iface: r.Iface, Out: r.Out, By: r.By}
	err = r.loop(ctx, began)
	r.sum.Seconds = time.Since(began).Seconds()
	r.ring.count()
	if r.sum.Stopped != "disk-full" {
		err = errors.Join(err, r.settleAll())
	}
	err = errors.Join(err, r.closeWatch(), r.ring.close())
	closing := r.files.close(r.By, r.Task, r.Other)
	if errors.Is(closing, errFull) {
		r.sum.Stopped = "disk-full"
		if !errors.Is(err, errFull) {
			err = errors.Join(err, closing)
		}
	} else {
		err = errors.Join(err, closing)
	}
	r.total()
	return &r.sum, err
}

// open opens everything that a run needs.
func (r *recorder) open() (err error) {
	if r.ring, err = openRing(r.device); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.closeWatch(), r.ring.close())
		}
	}()
	if r.By == Name {
		r.book = addressbook.New(func(name string) string {
			service, _ := r.Names.Lookup(name)
			return service.App
		})
	} else {
		var problem error
		if r.watch, problem, err = owner.Start(); err != nil {
			return err
		}
		if problem != nil {
			r.Log.Warn("not all sockets that are open already are known; their traffic is unknown", "reason", problem,
				"advice", strings.Join(fault.Advice(problem), "; "))
		}
	}
	session := fmt.Sprintf("%s-%s", r.Iface, time.Now().Format("20060102T150405"))
	if r.files, err = openFiles(r.Out, session); err != nil {
		return err
	}
	r.files.max, r.files.linkType = r.MaxSize, r.ring.link
	r.files.header = capture.AppendHeader(nil, "dpclass record", r.Iface, r.ring.link, r.Snap)
	return nil
}

func (r *recorder) closeWatch() error {
	if r.watch == nil {
		return nil
	}
	err := r.watch.Close()
	r.watch = nil
	return err
}

// loop reads packets until the end.
func (r *recorder) loop(ctx context.Context, began time.Time) error {
	var ticked, wrote, listed time.Time
	listed = began
	for {
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			r.sum.Stopped = "interrupted"
			return r.rest()
		case r.Duration > 0 && now.Sub(began) >= r.Duration:
			r.sum.Stopped = "duration"
			return r.rest()
		}
		err := r.ring.read(ctx, tick, r.packet)
		if err == nil && now.Sub(ticked) >= tick {
			ticked = now
			err = r.tick(now)
		}
		if err == nil && now.Sub(wrote) >= writeEvery {
			wrote = now
			err = r.files.flushAll()
		}
		if err == nil && now.Sub(listed) >= listEvery {
			listed = now
			err = r.files.manifest(r.By, r.Task, r.Other)
		}
		if err != nil {
			return r.stop(err)
		}
	}
}

// rest reads what is in the ring when a run ends.
func (r *recorder) rest() error {
	end := time.Now()
	for range blocks {
		before := r.ring.block
		err := r.ring.read(context.Background(), 2*retireMs*time.Millisecond, func(f *frame) error {
			if f.at.After(end) {
				return nil
			}
			return r.packet(f)
		})
		if err != nil {
			return r.stop(err)
		}
		if r.ring.block == before {
			break
		}
	}
	return nil
}

// stop notes why a run ends. The size limit is no error.
func (r *recorder) stop(err error) error {
	switch {
	case errors.Is(err, errSize):
		r.sum.Stopped = "size"
		return nil
	case errors.Is(err, errFull):
		r.sum.Stopped = "disk-full"
		return fault.Advise(fmt.Errorf("directory %q: %w; what was written before is complete", r.Out, errFull),
			"make room, or set --max-size, --snap or --packets")
	case errors.Is(err, errDown):
		r.sum.Stopped = "interface-gone"
		return fmt.Errorf("interface %q went down; what was recorded before is complete", r.Iface)
	}
	r.sum.Stopped = cmp.Or(r.sum.Stopped, "error")
	return err
}

// packet takes one frame.
func (r *recorder) packet(f *frame) error {
	p, reason := vector.Parse(f.ip, f.length)
	if reason == vector.Fragment {
		return r.fragment(f)
	}
	if reason != vector.OK {
		r.sum.NoFlow++
		return nil
	}
	key, fromA := flow.MakeKey(flow.Proto(p.Proto), p.Src, p.Dst, 0)
	t := r.flows[key]
	if t != nil && (t.ended && p.Proto == vector.TCP && p.Flags&18 == 2 || f.at.Sub(t.last) > idleFor) {
		// Another connection of these ports, maybe of another process.
		if err := r.settle(t, ""); err != nil {
			return err
		}
		t = nil
	}
	if t == nil {
		if len(r.flows) >= maxFlows {
			r.sum.Refused++
			return nil
		}
		t = &tracked{key: key, src: p.Src, dst: p.Dst, first: f.at}
		r.flows[key] = t
		r.waiting = append(r.waiting, t)
		r.sum.Flows++
	}
	t.last = f.at
	if p.Proto == vector.TCP && p.Flags&5 != 0 {
		t.ended = true
	}
	if p.First {
		r.note(f, t)
	}
	if t.out || t.label != nil && r.Packets > 0 && t.kept >= r.Packets { // most packets of a large flow: no work for them
		if !t.out {
			r.sum.Beyond += f.offload.segments(&p)
		}
		return nil
	}
	return segments(f.ip, &p, f.offload, func(ip []byte, length int) error {
		segment := p
		if len(ip) != len(f.ip) {
			segment, reason = vector.Parse(ip, length)
		}
		if t.label == nil && !t.out {
			if err := r.ask(t, ip, &segment, fromA, f.at); err != nil {
				return err
			}
		}
		return r.keep(t, f, ip, length, segment.Sampled())
	})
}

// fragmentID returns what all fragments of a datagram have in common.
func fragmentID(ip []byte) (id fragment, ok bool) {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		return fragment{netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20])), uint32(binary.BigEndian.Uint16(ip[4:]))}, true
	case len(ip) >= 48 && ip[0]>>4 == 6 && ip[6] == 44: // the fragment header is the first one, as almost always
		return fragment{netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40])), binary.BigEndian.Uint32(ip[44:])}, true
	}
	return fragment{}, false
}

// note remembers the flow of a datagram whose first fragment was seen.
func (r *recorder) note(f *frame, t *tracked) {
	if id, ok := fragmentID(f.ip); ok {
		if len(r.parts) >= maxFragments {
			clear(r.parts)
		}
		r.parts[id] = t
	}
}

// fragment keeps a later fragment with its flow.
func (r *recorder) fragment(f *frame) error {
	id, ok := fragmentID(f.ip)
	t := r.parts[id]
	if !ok || t == nil {
		r.sum.NoFlow++
		return nil
	}
	return r.keep(t, f, f.ip, f.length, false)
}

// keep writes a packet of a flow, or holds it until the label is known.
func (r *recorder) keep(t *tracked, f *frame, ip []byte, length int, body bool) error {
	if t.out {
		return nil
	}
	if r.Packets > 0 && t.kept >= r.Packets {
		r.sum.Beyond++
		return nil
	}
	r.cut = append(append(r.cut[:0], f.link...), ip...)
	data := r.cut
	if r.Snap > 0 {
		data = data[:min(len(data), r.Snap)]
	}
	whole := len(f.link) + length
	if t.label != nil {
		t.kept++
		return r.write(t, f.at, data, whole, body)
	}
	if r.held+len(data) > maxHeld || t.heldBytes+len(data) > maxHeldOne {
		r.sum.Shed++
		return nil
	}
	t.kept++
	t.held = append(t.held, heldFrame{f.at, slices.Clone(data), whole, body})
	t.heldBytes += len(data)
	r.held += len(data)
	return nil
}

func (r *recorder) write(t *tracked, at time.Time, data []byte, length int, body bool) error {
	if err := r.files.write(t.label, at, data, length); err != nil {
		return err
	}
	t.label.Packets++
	if body {
		t.label.Payload++
		if !t.payload {
			t.payload = true
			t.label.PayloadFlows++
		}
	}
	return nil
}

// ask looks for the label of a flow that waits for it.
func (r *recorder) ask(t *tracked, ip []byte, p *vector.Packet, fromA bool, now time.Time) error {
	if r.By == Name {
		return r.askName(t, ip, p, fromA, now)
	}
	if now.Sub(t.asked) < askEvery {
		return nil
	}
	return r.askProcess(t, now)
}

func (r *recorder) askProcess(t *tracked, now time.Time) error {
	t.asked = now
	process, found := r.watch.Finder().Find(&owner.Flow{
		Proto: t.key.Proto, Src: t.src, Dst: t.dst, Ifindex: r.device.Attrs().Index, First: t.first, Last: t.last,
	})
	if found == owner.Unknown {
		return nil
	}
	if found == owner.Foreign {
		return r.settle(t, "")
	}
	if r.By == Process {
		return r.settle(t, process.Name, process.Name)
	}
	path, ok := r.cgroups.Path(process.Cgroup)
	if !ok {
		return nil // the tree is read again soon
	}
	short := owner.CgroupName(path)
	return r.settle(t, short, short, path)
}

// askName reads a packet for a server name.
func (r *recorder) askName(t *tracked, ip []byte, p *vector.Packet, fromA bool, now time.Time) error {
	if p.Captured <= 0 {
		return nil
	}
	payload := ip[p.Payload : p.Payload+p.Captured]
	if p.IsDNS() {
		if p.Proto == vector.UDP && p.Src.Port() == flow.DNSPort {
			_, _ = r.book.Answer(payload, now) // what is no answer names nothing
		}
		return r.settle(t, "")
	}
	if t.wire == nil {
		t.wire, t.server = &wire.Flow{}, p.Dst
	}
	packet := wire.Packet{
		Proto: flow.Proto(p.Proto), FromA: fromA, SrcPort: p.Src.Port(), DstPort: p.Dst.Port(), Payload: payload, Length: p.Length - p.Payload,
	}
	if packet.Proto == flow.TCP {
		packet.Seq = binary.BigEndian.Uint32(ip[p.L4+4:])
	}
	t.wire.Add(&packet)
	if name := t.wire.Evidence().Name; name != "" {
		if name == flow.HiddenName {
			return r.settle(t, "")
		}
		r.book.Saw(p.Dst, t.key.Proto, name, now)
		return r.settle(t, name, name)
	}
	if t.wire.Pending() {
		return nil
	}
	return r.settleByAddress(t, now)
}

// settleByAddress gives a flow without a server name of its own the one that its address has,
// if any.
func (r *recorder) settleByAddress(t *tracked, now time.Time) error {
	name := ""
	if t.server.IsValid() {
		if name, _ = r.book.Lookup(t.server, t.key.Proto, now); name == "" {
			other := t.src
			if t.server == t.src {
				other = t.dst
			}
			name, _ = r.book.Lookup(other, t.key.Proto, now)
		}
	}
	if name == "" {
		return r.settle(t, "")
	}
	return r.settle(t, name, name)
}

// settle gives a flow its label and writes what was held of it. name is what the label comes
// from, "" if it is not known; a pattern of the map may fit any of all.
func (r *recorder) settle(t *tracked, name string, all ...string) error {
	if t.label != nil || t.out {
		return nil
	}
	if t.wire != nil {
		t.wire.Release()
		t.wire = nil
	}
	held := t.held
	t.held = nil
	r.held -= t.heldBytes
	t.heldBytes = 0
	var text string
	if name != "" {
		var mapped bool
		if text, mapped = r.Map.find(r.By == Name, all...); !mapped {
			text = labelOf(name, r.By, r.Task)
		}
	}
	if text == leaveOut {
		t.out = true
		r.sum.LeftOut++
		return nil
	}
	if text == "" || len(r.files.labels) >= maxLabels && r.files.labels[text] == nil {
		text = flow.Unknown
		r.sum.Unknown++
	}
	var err error
	if t.label, err = r.files.label(text); err != nil {
		return err
	}
	t.label.Flows++
	if name != "" && len(t.label.programs) < maxPrograms {
		t.label.programs[name] = true
	}
	for _, f := range held {
		if err := r.write(t, f.at, f.data, f.length, f.body); err != nil {
			return err
		}
	}
	return nil
}

// tick looks at the flows that wait, and forgets old ones.
func (r *recorder) tick(now time.Time) error {
	hold := holdProcess
	if r.By == Name {
		hold = holdName
	}
	still := r.waiting[:0]
	for _, t := range r.waiting {
		if t.label == nil && !t.out && r.By != Name && now.Sub(t.asked) >= askEvery {
			if err := r.askProcess(t, now); err != nil {
				return err
			}
		}
		if t.label == nil && !t.out && now.Sub(t.first) >= hold {
			if err := r.giveUp(t, now); err != nil {
				return err
			}
		}
		if t.label == nil && !t.out {
			still = append(still, t)
		}
	}
	clear(r.waiting[len(still):])
	r.waiting = still
	if len(r.flows) > 0 && now.UnixMilli()/int64(tick/time.Millisecond)%50 == 0 { // every five seconds
		for key, t := range r.flows {
			if idle := now.Sub(t.last); idle > idleFor || t.ended && idle > endedFor {
				delete(r.flows, key)
			}
		}
		clear(r.parts)
	}
	if r.Progress != nil {
		r.ring.count()
		r.sum.open = len(r.flows)
		r.total()
		r.Progress(&r.sum)
	}
	return nil
}

// giveUp settles a flow whose label has not come.
func (r *recorder) giveUp(t *tracked, now time.Time) error {
	if r.By == Name {
		return r.settleByAddress(t, now)
	}
	return r.settle(t, "")
}

// settleAll settles the flows that still wait at the end.
func (r *recorder) settleAll() error {
	for _, t := range r.waiting {
		var err error
		if r.By != Name && t.label == nil && !t.out {
			err = r.askProcess(t, time.Now())
		}
		if err == nil {
			err = r.giveUp(t, time.Now())
		}
		if errors.Is(err, errSize) {
			return nil
		} else if err != nil {
			return r.stop(err)
		}
	}
	return nil
}

// total fills in what the summary adds up.
func (r *recorder) total() {
	s := &r.sum
	s.Received, s.Lost, s.Bytes, s.Packets = r.ring.received, r.ring.lost, 0, 0
	s.Labels = s.Labels[:0]
	for _, l := range r.files.sorted() {
		s.Packets += l.Packets
		s.Bytes += l.Bytes
		s.Labels = append(s.Labels, Label{l.name, l.path, l.Flows, l.Packets, l.Bytes, l.names()})
	}
}
