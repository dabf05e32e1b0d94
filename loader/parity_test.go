// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// said is what the Go side says of a frame.
type said struct {
	reason string // as counted; "ok" if the packet has a flow
	packet []byte // from the IP header on
	vector.Packet
}

// read reads a frame as the kernel has to.
func read(frame []byte, kind encap) said {
	var version byte
	packet := frame
	if kind == bare {
		if version = frame[0] >> 4; version != 4 && version != 6 {
			return said{reason: "not_ip"}
		}
	} else {
		if len(frame) < 14 {
			return said{reason: "truncated"}
		}
		offset, ethertype, reason := vector.Network(binary.BigEndian.Uint16(frame[12:]), frame[14:])
		if reason != vector.OK {
			return said{reason: reason.String()}
		}
		packet, version = frame[14+offset:], 6
		if ethertype == 0x0800 {
			version = 4
		}
	}
	header := map[byte]int{4: 20, 6: 40}[version]
	if len(packet) < header {
		return said{reason: "truncated"}
	}
	if packet[0]>>4 != version {
		return said{reason: "ip_header"}
	}
	parsed, reason := vector.Parse(packet, len(packet))
	return said{reason: reason.String(), packet: packet, Packet: parsed}
}

// key returns the flow's key; an IPv4 address in IPv6's form stays one, as in the kernel's tables.
func (s *said) key() (key flow.Key, fromA bool) {
	if s.Src.Compare(s.Dst) <= 0 {
		return flow.Key{A: s.Src, B: s.Dst, Proto: flow.Proto(s.Proto)}, true
	}
	return flow.Key{A: s.Dst, B: s.Src, Proto: flow.Proto(s.Proto)}, false
}

// masked returns the copy that the kernel has to make.
func (s *said) masked() []byte {
	packet := bytes.Clone(s.packet[:min(s.Length, vector.Size)])
	zero := func(from, to int) { clear(packet[min(from, len(packet)):min(to, len(packet))]) }
	if packet[0]>>4 == 4 {
		zero(10, 20)
	} else {
		zero(8, 40)
	}
	if s.Proto == vector.TCP {
		zero(s.L4+16, s.L4+18)
	} else {
		zero(s.L4+6, s.L4+8)
	}
	return packet
}

// comparer runs programs on frames and holds all that comes out against the Go side.
type comparer struct {
	*kernel
	kind encap
	last map[string]uint64
}

func newComparer(t testing.TB, kind encap) *comparer {
	k := newKernel(t, Config{}, kind)
	return &comparer{kernel: k, kind: kind, last: k.counters()}
}

// take removes the flow that the frame has made and returns it. No other may be there.
func (c *comparer) take(key flow.Key) (bpfFlow, error) {
	var f bpfFlow
	if key.A.IsValid() {
		wide, family := wideKey(key)
		table, mapKey := c.maps.Pending6, any(wide)
		if family == 4 {
			table, mapKey = c.maps.Pending, narrowKey(key)
		}
		if err := table.Lookup(mapKey, &f); err != nil {
			return f, fmt.Errorf("flow %q: %w", key, err)
		}
		if err := table.Delete(mapKey); err != nil {
			return f, err
		}
	}
	var other4 bpfFlowKey
	if err := c.maps.Pending.NextKey(nil, &other4); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return f, fmt.Errorf("flow %q is in the table: %v", keyOf4(&other4), err)
	}
	var other6 bpfFlowKey6
	if err := c.maps.Pending6.NextKey(nil, &other6); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return f, fmt.Errorf("flow %q is in the table: %v", keyOf6(&other6), err)
	}
	return f, nil
}

// compare returns what differs, nil if nothing does.
func (c *comparer) compare(program string, frame []byte) error {
	want := read(frame, c.kind)
	verdict, out := c.run(program, frame)
	if verdict != passed(program) {
		return fmt.Errorf("returned %d", int32(verdict))
	}
	if !bytes.Equal(out, frame) {
		return errors.New("the packet was changed")
	}
	counted := map[string]uint64{}
	now := c.counters()
	for name, n := range now {
		if n != c.last[name] {
			counted[name] = n - c.last[name]
		}
	}
	c.last = now
	s := c.sample()

	if want.reason != "ok" {
		if len(counted) != 1 || counted[want.reason] != 1 {
			return fmt.Errorf("counted %v, want %q", counted, want.reason)
		}
		if s != nil {
			return errors.New("sampled")
		}
		_, err := c.take(flow.Key{})
		return err
	}

	key, fromA := want.key()
	f, err := c.take(key)
	if err != nil {
		return fmt.Errorf("%w; counted %v", err, counted)
	}
	packets, bytesCounted, rest := f.PacketsIn, f.BytesIn, f.PacketsOut+f.BytesOut
	if program == progOut {
		packets, bytesCounted, rest = f.PacketsOut, f.BytesOut, f.PacketsIn+f.BytesIn
	}
	if packets != 1 || bytesCounted != uint64(want.Length) || rest != 0 {
		return fmt.Errorf("%d packets, %d bytes, want 1 of %d", packets, bytesCounted, want.Length)
	}
	const numbers = bpfFlowStateStateAckedA | bpfFlowStateStateAckedB | bpfFlowStateStateA_out
	if state := stateOf(&want.Packet, fromA); f.State&^numbers != state {
		return fmt.Errorf("state %v, want %v", f.State, state)
	}
	switch {
	case want.Sampled():
		if len(counted) != 1 || counted["sampled"] != 1 || s == nil || f.Samples != 1 {
			return fmt.Errorf("counted %v, want a sample", counted)
		}
		return c.compareSample(program, s, &want, &f)
	case want.Captured > 0: // DNS
		if len(counted) != 1 || counted["dns"] != 1 {
			return fmt.Errorf("counted %v, want dns", counted)
		}
	case len(counted) != 0:
		return fmt.Errorf("counted %v, want nothing", counted)
	}
	if s != nil || f.Samples != 0 {
		return errors.New("sampled")
	}
	return nil
}

// stateOf returns the state of a flow after its first packet.
func stateOf(p *vector.Packet, fromA bool) bpfFlowState {
	state, fin := bpfFlowStateStateSentA, bpfFlowStateStateFinA
	if !fromA {
		state, fin = bpfFlowStateStateSentB|bpfFlowStateStateFirstB, bpfFlowStateStateFinB
	}
	if p.Proto != vector.TCP {
		return state
	}
	if p.Flags&1 != 0 {
		state |= fin
	}
	if p.Flags&4 != 0 {
		state |= bpfFlowStateStateRst
	}
	if p.Flags&2 != 0 {
		return state | bpfFlowStateStateSyn
	}
	return state | bpfFlowStateStateMidstream
}

func (c *comparer) compareSample(program string, s *flow.Sample, want *said, f *bpfFlow) error {
	key, _ := want.key()
	if s.ID.Key != key || s.ID.Generation != f.Generation || s.Direction != directionOf(program) || s.Index != 0 ||
		s.Length != want.Length || s.Time < int64(f.FirstNs) {
		return fmt.Errorf("sample %+v, want %d bytes of %q, generation %d", s, want.Length, key, f.Generation)
	}
	if copied := want.masked(); !bytes.Equal(s.Packet, copied) {
		return fmt.Errorf("copy differs:\n%x, want\n%x", s.Packet, copied)
	}
	var fromCopy, fromPacket [vector.Size]byte
	vector.Make(&fromCopy, s.Packet, false)
	vector.Make(&fromPacket, want.packet, false)
	if fromCopy != fromPacket {
		return fmt.Errorf("vector of the copy differs:\n%x, want\n%x", fromCopy, fromPacket)
	}
	if more := c.sample(); more != nil {
		return errors.New("sampled twice")
	}
	return nil
}

// runs reports whether the kernel's test run takes the frame: for a tc program nothing shorter than
// the IP header that the EtherType names.
func runs(program string, frame []byte) bool {
	if program == progXDP || len(frame) < 15 {
		return len(frame) >= 15
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		return len(frame) >= 14+20
	case 0x86dd:
		return len(frame) >= 14+40
	}
	return true
}

func (c *comparer) check(t *testing.T, name string, frame []byte) {
	t.Helper()
	c.t = t // a fuzz target has its own
	for _, program := range programs {
		if c.kind == bare && program == progXDP {
			continue // tun and the like have no native XDP
		}
		if !runs(program, frame) {
			continue
		}
		if err := c.compare(program, frame); err != nil {
			t.Errorf("%s: %s of %d bytes: %v\n%x", program, name, len(frame), err, frame)
		}
	}
}

// TestHeaders: every combination of headers after every link layer.
func TestHeaders(t *testing.T) {
	t.Parallel()
	links := map[string][]uint16{
		"ethernet": nil, "vlan": {0x8100}, "qinq": {0x88a8, 0x8100}, "old qinq": {0x9100, 0x8100},
		"triple": {0x88a8, 0x8100, 0x8100},
	}
	c := newComparer(t, ethernet)
	for name, tags := range links {
		for _, payload := range []int{0, 1, 700} {
			for _, spec := range packettest.Specs(payload) {
				c.check(t, name+" "+spec.String(), packettest.Ethernet(spec.Build().Data, tags...))
			}
		}
		for _, spec := range packettest.Specs(30) {
			packet := spec.Build().Data
			c.check(t, name+" pppoe "+spec.String(), packettest.PPPoE(packet, tags...))
			for labels := 1; labels <= 5; labels++ {
				c.check(t, fmt.Sprint(name, " mpls ", labels, " ", spec), packettest.MPLS(packet, labels, tags...))
			}
		}
	}
}

// TestShims: PPPoE and MPLS headers that hold no IP packet, or may be cut anywhere.
func TestShims(t *testing.T) {
	t.Parallel()
	c := newComparer(t, ethernet)
	for _, spec := range []packettest.Spec{{Payload: 30}, {IPv6: true, Proto: packettest.UDP, Payload: 30}} {
		packet := spec.Build().Data
		for name, frame := range map[string][]byte{
			"pppoe": packettest.PPPoE(packet, 0x8100), "mpls": packettest.MPLS(packet, 4, 0x88a8, 0x8100), "mpls of one": packettest.MPLS(packet, 1),
		} {
			for cut := 15; cut < len(frame); cut++ {
				c.check(t, name, frame[:cut])
			}
			for at := 12; at < min(len(frame), 14+8+16+1); at++ {
				for value := range 256 {
					changed := bytes.Clone(frame)
					changed[at] = byte(value)
					c.check(t, fmt.Sprintf("%s, byte %d is %#x", name, at, value), changed)
				}
			}
		}
	}
}

// TestBareHeaders: the same on a device whose frames begin with the IP header.
func TestBareHeaders(t *testing.T) {
	t.Parallel()
	c := newComparer(t, bare)
	for _, payload := range []int{0, 1, 700} {
		for _, spec := range packettest.Specs(payload) {
			c.check(t, spec.String(), spec.Build().Data)
		}
	}
	c.check(t, "no IP", bytes.Repeat([]byte{0x55}, 60))
}

// TestLengths: every payload length from 0 to 1600.
func TestLengths(t *testing.T) {
	t.Parallel()
	c := newComparer(t, ethernet)
	for payload := range 1601 {
		for _, proto := range []uint8{packettest.TCP, packettest.UDP} {
			for _, ipv6 := range []bool{false, true} {
				spec := packettest.Spec{IPv6: ipv6, Proto: proto, Payload: payload}
				c.check(t, spec.String(), packettest.Ethernet(spec.Build().Data))
			}
		}
	}
}

// TestCutAnywhere: a frame may end at any byte, whatever its headers say.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	c := newComparer(t, ethernet)
	for _, spec := range packettest.Specs(2) {
		frame := packettest.Ethernet(spec.Build().Data, 0x88a8, 0x8100)
		step := 1
		switch {
		case len(frame) > 300:
			step = 97
		case len(frame) > 100:
			step = 3
		}
		for cut := 14; cut < len(frame); cut += step {
			c.check(t, spec.String(), frame[:cut])
		}
	}
}

// TestLying: lengths, versions and offsets that cannot be.
func TestLying(t *testing.T) {
	t.Parallel()
	c := newComparer(t, ethernet)
	for _, payload := range []int{0, 30} {
		for _, proto := range []uint8{packettest.TCP, packettest.UDP} {
			spec4 := packettest.Spec{Proto: proto, Payload: payload, Options: 2}
			spec6 := packettest.Spec{Proto: proto, Payload: payload, IPv6: true, Extensions: []uint8{packettest.DestOptions, packettest.Auth}}
			edit := func(spec packettest.Spec, what string, at int, value byte) {
				data := spec.Build().Data
				data[at] = value
				c.check(t, fmt.Sprintf("%s, %s %#x", spec, what, value), packettest.Ethernet(data))
				c.check(t, fmt.Sprintf("%s, %s %#x, padded", spec, what, value), append(packettest.Ethernet(data), make([]byte, 20)...))
			}
			l4, l6 := spec4.Build().L4, spec6.Build().L4
			for value := range 256 {
				edit(spec4, "version and header length", 0, byte(value))
				edit(spec4, "total length", 3, byte(value))
				edit(spec4, "total length, high byte", 2, byte(value))
				edit(spec4, "fragment", 6, byte(value))
				edit(spec4, "fragment, low byte", 7, byte(value))
				edit(spec4, "protocol", 9, byte(value))
				edit(spec6, "version", 0, byte(value))
				edit(spec6, "payload length", 5, byte(value))
				edit(spec6, "next header", 6, byte(value))
				edit(spec6, "length of the extension header", 41, byte(value))
				edit(spec6, "next header of the extension header", 40, byte(value))
				edit(spec6, "length of AH", 49, byte(value))
				if proto == packettest.TCP {
					edit(spec4, "data offset", l4+12, byte(value))
					edit(spec4, "flags", l4+13, byte(value))
					edit(spec6, "data offset", l6+12, byte(value))
				}
			}
			for _, spec := range []packettest.Spec{spec4, spec6} {
				data := spec.Build().Data
				at := 2
				if spec.IPv6 {
					at = 4
				}
				data[at], data[at+1] = 0, 0
				c.check(t, spec.String()+", length 0", packettest.Ethernet(data))
			}
		}
	}
}

// TestDNS: port 53 on either end is never sampled, others' DNS is.
func TestDNS(t *testing.T) {
	t.Parallel()
	c := newComparer(t, ethernet)
	for _, proto := range []uint8{packettest.TCP, packettest.UDP} {
		for _, ports := range [][2]uint16{{53, 4000}, {4000, 53}, {53, 53}, {5353, 5353}, {853, 4000}, {13568, 4000}} {
			spec := packettest.Spec{Proto: proto, Payload: 40}
			src, dst := spec.Ends()
			spec.Src = netip.AddrPortFrom(src.Addr(), ports[0])
			spec.Dst = netip.AddrPortFrom(dst.Addr(), ports[1])
			c.check(t, fmt.Sprint(spec, ports), packettest.Ethernet(spec.Build().Data))
		}
	}
}

// FuzzKernel holds the programs against the Go side over frames of any kind.
func FuzzKernel(f *testing.F) {
	for _, spec := range packettest.Specs(3) {
		f.Add(packettest.Ethernet(spec.Build().Data, 0x8100))
		f.Add(packettest.PPPoE(spec.Build().Data))
		f.Add(packettest.MPLS(spec.Build().Data, 2))
	}
	needRoot(f)
	c := newComparer(f, ethernet)
	l3 := newComparer(f, bare)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 15 || len(frame) > 3000 { // the tc test run wants more than a link-layer header
			return
		}
		c.check(t, "frame", frame)
		l3.check(t, "packet", frame)
	})
}

// TestCaptures holds the programs against the Go side over the packets of real captures: those below the directory
// DPCLASS_CORPUS.
func TestCaptures(t *testing.T) {
	root := os.Getenv("DPCLASS_CORPUS")
	if root == "" {
		t.Skip("SKIPPED: DPCLASS_CORPUS is not set: no captures to compare over")
	}
	var names []string
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".pcap") {
			names = append(names, name)
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures below %q: %v", root, err)
	}
	c := newComparer(t, bare)
	packets := 0
	for _, name := range names {
		reader, err := capture.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for {
			packet, err := reader.Next()
			if err != nil {
				break // the end, or a capture that is cut
			}
			if len(packet.Data) >= 40 && len(packet.Data) <= 3000 {
				c.check(t, name, packet.Data)
				packets++
			}
		}
		reader.Close()
	}
	t.Logf("%d packets of %d captures", packets, len(names))
}
