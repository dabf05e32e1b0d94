// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/internal/vector/packettest"
	"github.com/dpclass/dpclass/lab"
)

// sampledSegments is how many segments of a super-packet are sampled.
const sampledSegments = 3

const (
	ece = 0x40
	cwr = 0x80
)

// superPacket is a packet whose payload goes out in segments of mss bytes.
type superPacket struct {
	packettest.Spec
	mss     int
	fixedID bool // the packet's ID is 0, with DF: so are those of its segments
}

func (s *superPacket) packet() packettest.Packet {
	p := s.Build()
	if s.fixedID {
		p.Data[4], p.Data[5] = 0, 0
	}
	return p
}

// segments returns the wire segments, with the super-packet's checksums.
func (s *superPacket) segments() (all [][]byte) {
	whole := s.packet()
	headers, payload := whole.Data[:whole.Offset], whole.Data[whole.Offset:]
	for start := 0; start < len(payload); start += s.mss {
		segment := append(bytes.Clone(headers), payload[start:min(start+s.mss, len(payload))]...)
		transport := segment[whole.L4:]
		if s.IPv6 {
			binary.BigEndian.PutUint16(segment[4:], uint16(len(segment)-40))
		} else {
			binary.BigEndian.PutUint16(segment[2:], uint16(len(segment)))
			if !s.fixedID {
				binary.BigEndian.PutUint16(segment[4:], binary.BigEndian.Uint16(segment[4:])+uint16(len(all)))
			}
		}
		if s.Proto == packettest.UDP {
			binary.BigEndian.PutUint16(transport[4:], uint16(len(transport)))
		} else {
			binary.BigEndian.PutUint32(transport[4:], binary.BigEndian.Uint32(transport[4:])+uint32(start))
			if start > 0 {
				transport[13] &^= cwr
			}
			if start+s.mss < len(payload) {
				transport[13] &^= fin | psh
			}
		}
		all = append(all, segment)
	}
	return all
}

func superPackets() (all []superPacket) {
	const flags = ack | psh | fin | ece | cwr
	for _, sizes := range [][2]int{{1000, 1001}, {1000, 2000}, {1000, 2500}, {500, 2900}, {1448, 1800}, {1700, 3000}, {3, 4}} {
		mss, payload := sizes[0], sizes[1]
		for _, spec := range []packettest.Spec{
			{}, {TCPOptions: 3}, {Options: 10, TCPOptions: 10}, {Proto: packettest.UDP}, {Proto: packettest.UDP, Options: 1},
			{IPv6: true}, {IPv6: true, TCPOptions: 3}, {IPv6: true, Proto: packettest.UDP},
			{IPv6: true, Extensions: []uint8{packettest.DestOptions, packettest.Auth}},
			{IPv6: true, Extensions: []uint8{packettest.DestOptions}, ExtWords: 100, Proto: packettest.UDP},
		} {
			spec.Payload, spec.TCPFlags = payload, flags
			if spec.Build().Offset+payload < 3400 { // a test run takes a page at most
				all = append(all, superPacket{Spec: spec, mss: mss})
			}
		}
		all = append(all, superPacket{Spec: packettest.Spec{Payload: payload, TCPFlags: flags}, mss: mss, fixedID: true})
	}
	return all
}

// TestSuperPacket: counted as on the wire, and sampled as its first segments.
func TestSuperPacket(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	for n, s := range superPackets() {
		src, dst := s.Ends()
		s.Src, s.Dst = netip.AddrPortFrom(src.Addr(), uint16(1000+n)), dst
		proto := flow.TCP
		if s.Proto == packettest.UDP {
			proto = flow.UDP
		}
		key, _ := flow.MakeKey(proto, s.Src, s.Dst, 0)
		want := s.segments()
		total := 0
		for _, segment := range want {
			total += len(segment)
		}
		packet := s.packet()
		for hook, program := range []string{progIn, progOut} {
			frame := packettest.Ethernet(packet.Data)
			verdict, out := k.run(program, frame, &skb{GSOSize: uint32(s.mss), GSOSegs: uint32(len(want))})
			if verdict != tcNext || !bytes.Equal(out, frame) {
				t.Fatalf("%s: returned %d, changed: %t", s, int32(verdict), !bytes.Equal(out, frame))
			}
			r := k.flow(key)
			counted, bytesCounted := r.PacketsIn, r.BytesIn
			if program == progOut {
				counted, bytesCounted = r.PacketsOut, r.BytesOut
			}
			if int(counted) != len(want) || int(bytesCounted) != total {
				t.Errorf("%s: %d packets, %d bytes, want %d, %d", s, counted, bytesCounted, len(want), total)
			}
			// The budget is five samples: three and two.
			count := min(len(want), sampledSegments, flow.DefaultSamples-hook*min(len(want), sampledSegments))
			for number, segment := range want[:count] {
				sample := k.sample()
				if sample == nil {
					t.Fatalf("%s: segment %d: no sample", s, number)
				}
				index := hook*min(len(want), sampledSegments) + number
				if sample.ID.Key != key || sample.Index != index || sample.Length != len(segment) || sample.Direction != directionOf(program) {
					t.Errorf("%s: segment %d: sample %+v", s, number, sample)
				}
				said := read(packettest.Ethernet(segment), ethernet)
				if copied := said.masked(); !bytes.Equal(sample.Packet, copied) {
					t.Fatalf("%s: segment %d of %d:\n%x, want\n%x", s, number, len(want), sample.Packet, copied)
				}
			}
			if more := k.samples(); more != 0 {
				t.Errorf("%s: %d samples more than %d", s, more, count)
			}
		}
		if r := k.flow(key); r.Samples != min(2*min(len(want), sampledSegments), flow.DefaultSamples) {
			t.Errorf("%s: %d samples", s, r.Samples)
		}
	}
}

// TestSegmentsAndFullRing: if a segment does not fit, the ones after it are not tried,
// and the flow's next packet takes its number.
func TestSegmentsAndFullRing(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{RingBytes: 4096}, ethernet)
	k.pass(progOut, udp(1).sent(0, 1400)) // about 2500 bytes are left
	const mss, segments = 1000, 3
	c := tcp(1)
	if verdict, _ := k.run(progOut, c.sent(ack, segments*mss), &skb{GSOSize: mss, GSOSegs: segments}); verdict != tcNext {
		t.Fatalf("returned %d", int32(verdict))
	}
	if counted := k.counters(); counted["sampled"] != 3 || counted["ring_full"] != 1 {
		t.Errorf("counted %v", counted)
	}
	if r := k.flow(c.key()); r.Samples != 2 {
		t.Errorf("%+v", r)
	}
	if n := k.samples(); n != 3 {
		t.Errorf("%d samples", n)
	}
	k.pass(progOut, c.sent(ack, 100))
	if s := k.sample(); s == nil || s.ID.Key != c.key() || s.Index != 2 || s.Length != 140 {
		t.Errorf("sample %+v", s)
	}
}

// TestSegmentsOnTheWire holds the samples of super-packets that leave a host against the
// packets that the other end receives.
func TestSegmentsOnTheWire(t *testing.T) {
	if _, err := lab.FindProgram("ethtool"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	h, peer := wired(t)
	for host, addr := range map[*lab.Host]string{h: "fd00:9::1/64", peer: "fd00:9::2/64"} {
		if err := host.AddAddrs("eth0", addr); err != nil {
			t.Fatal(err)
		}
	}
	// The far end sees wire packets; the near end's stack hands over super-packets.
	if err := peer.SetOffload("eth0", false); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Run(t.Context(), "ethtool", "-K", "eth0", "tso", "off", "tx-udp-segmentation", "off", "gso", "on"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	a := attached(t, h, Config{Mode: TC})
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	samples := make(chan flow.Sample, 100)
	done := make(chan error, 1)
	go func() {
		done <- a.Ring().Samples(t.Context(), func(s *flow.Sample) {
			own := *s
			own.Packet = bytes.Clone(s.Packet)
			samples <- own
		})
	}()
	var last flow.Key
	for n, remote := range []string{"10.9.0.2", "fd00:9::2"} {
		for _, proto := range []flow.Proto{flow.UDP, flow.TCP} {
			at := netip.AddrPortFrom(netip.MustParseAddr(remote), uint16(7000+n))
			before := egressRuns(t, a)
			packets, key := sendSuper(t, h, peer, proto, at)
			// Without super-packets: each packet, and the two that open a connection.
			alone := uint64(len(packets))
			if proto == flow.TCP {
				alone += 2
			}
			if runs := egressRuns(t, a) - before; runs >= alone {
				t.Errorf("%s: %d packets went out by %d runs of the program: no super-packet", key, len(packets), runs)
			}
			for index, frame := range packets[:sampledSegments] {
				said := read(frame, ethernet)
				select {
				case s := <-samples:
					for s.ID.Key == last { // of the next super-packet of the flow before
						s = <-samples
					}
					if s.ID.Key != key || s.Index != index || s.Length != said.Length || !bytes.Equal(s.Packet, said.masked()) {
						t.Errorf("%s: sample %d of %q, %d bytes:\n%x, want %d\n%x", key, s.Index, s.ID.Key, s.Length, s.Packet,
							said.Length, said.masked())
					}
				case err := <-done:
					t.Fatal(err)
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: no sample %d", key, index)
				}
			}
			last = key
		}
	}
}

// egressRuns returns how often the egress program has run.
func egressRuns(t *testing.T, a *Attachment) uint64 {
	t.Helper()
	for _, hook := range states(t, a) {
		if hook.Program != progOut {
			continue
		}
		program, err := ebpf.NewProgramFromID(ebpf.ProgramID(hook.ProgID))
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		info, err := program.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return info.RunCount
	}
	t.Fatal("no egress program")
	return 0
}

// sendSuper sends a packet of three segments or more, the last of them shorter, to the
// peer. It returns the frames with payload that the peer's device receives.
func sendSuper(t *testing.T, h, peer *lab.Host, proto flow.Proto, to netip.AddrPort) (frames [][]byte, key flow.Key) {
	t.Helper()
	// Twelve packets of UDP, nine of TCP: the few that the stack sends on its own (neighbours, groups) do not hide that
	// they left as one or two. TCP sends that much at once.
	const mss, payload = 1000, 12000
	receiver := -1
	in(t, peer, func() (err error) {
		const all = unix.ETH_P_ALL << 8 // in network byte order
		receiver, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		return err
	})
	defer unix.Close(receiver)
	if err := unix.SetsockoptTimeval(receiver, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	if proto == flow.TCP {
		listener, err := peer.Listen(t.Context(), to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	} else {
		conn, err := peer.ListenUDP(t.Context(), to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	conn, err := h.Dial(t.Context(), map[flow.Proto]string{flow.TCP: "tcp", flow.UDP: "udp"}[proto], "", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if proto == flow.UDP {
		raw, err := conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, mss)
		}); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
	}
	body := make([]byte, payload)
	for n := range body {
		body[n] = byte(n%251) + 1
	}
	if _, err := conn.Write(body); err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddrPort(conn.LocalAddr().String())
	key, _ = flow.MakeKey(proto, from, to, 0)
	frame := make([]byte, 1<<16)
	for received := 0; received < payload; {
		n, sender, err := unix.Recvfrom(receiver, frame, 0)
		if err != nil {
			t.Fatalf("%s: %d of %d bytes: %v", key, received, payload, err)
		}
		if link, ok := sender.(*unix.SockaddrLinklayer); !ok || link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		said := read(frame[:n], ethernet)
		if said.reason != vector.OK.String() || said.Length <= said.Payload {
			continue
		}
		if got, _ := said.key(); got == key {
			frames = append(frames, bytes.Clone(frame[:n]))
			received += said.Length - said.Payload
		}
	}
	if len(frames) < sampledSegments {
		t.Fatalf("%s: %d packets", key, len(frames))
	}
	return frames, key
}
