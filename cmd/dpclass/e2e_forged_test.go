// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/vector/packettest"
	"github.com/dpclass/dpclass/lab"
)

// testForged has somebody send a forged RST and SYN of a connection every 50 ms while a rule
// drops that connection: they do not lift the drop. Guessed sequence numbers do not end the
// flow; with those of the connection, the flow ends, and the rule acts on the next one too.
func testForged(t *testing.T, s *suite) {
	const (
		rounds   = 40
		interval = 50 * time.Millisecond
		most     = 256 << 10 // bytes that may come through; without the rule, uploads send that in 40 ms
	)
	for _, mode := range []string{"native", "tc"} {
		t.Run(mode, func(t *testing.T) {
			r := routed(t, lab.Topology{})
			s.attach(t, r.Router, "eth0", "--mode", mode, "--no-classify")
			rules := "version: 1\nrules:\n  - match: {app: torrent}\n    action: {drop: true}\n"
			var uploads []*upload
			for _, server := range []string{r.ServerAddr4, r.ServerAddr6} {
				for _, byPort := range []bool{false, true} {
					for _, known := range []bool{false, true} {
						u := newUpload(t, r, server)
						u.byPort, u.known = byPort, known
						uploads = append(uploads, u)
						rule := fmt.Sprintf("  - match: {port: tcp/%d}\n    action: {drop: true}\n", u.server.Port())
						if byPort && !strings.Contains(rules, rule) { // servers of both IP versions may have one port
							rules += rule
						}
					}
				}
			}
			total := func() (n uint64) {
				for _, u := range uploads {
					n += u.received.Load()
				}
				return n
			}
			until := func(what string, check func() bool) {
				t.Helper()
				if err := lab.Until(testContext(t), what, func() (bool, error) { return check(), nil }); err != nil {
					t.Fatal(err)
				}
			}
			before := map[flow.Key]flow.Record{}
			for _, u := range uploads {
				until(u.String()+" runs", func() bool { return u.received.Load() > most && u.sequence.Load() != 0 })
				if !u.byPort {
					s.set(t, r.Router, u.key, "--app", "torrent")
				}
				before[u.key] = s.waitFlow(t, r.Router, "eth0", u.key)
			}
			s.apply(t, r.Router, rules)
			until("the drop", func() bool {
				n := total()
				time.Sleep(interval)
				return total() == n
			})
			stopped := map[*upload]uint64{}
			for _, u := range uploads {
				stopped[u] = u.received.Load()
			}
			for range rounds {
				for _, u := range uploads {
					if err := u.forge(); err != nil {
						t.Fatalf("%v: %v", u, err)
					}
				}
				time.Sleep(interval)
			}
			after := s.flows(t, r.Router, "eth0")
			for _, u := range uploads {
				if n := u.received.Load() - stopped[u]; n > most {
					t.Errorf("%v: %d bytes came through the drop", u, n)
				}
				got, was := after[u.key], before[u.key]
				if again := got.Generation != was.Generation; again != u.known || got.Held != u.known || got.Rule == 0 || got.Dropped == 0 {
					t.Errorf("%v: %+v %+v, before %+v", u, got, got.Live, was.Live)
				}
			}
			// The connections themselves have seen nothing of it.
			s.run(t, r.Router, "policy", "clear", "eth0").want(t, cli.ExitDone)
			for _, u := range uploads {
				until(u.String()+" goes on", func() bool { return u.received.Load() > stopped[u]+most })
			}
		})
	}
}

// upload is a connection of the client's that sends all the time, and somebody on the way
// who sees its packets and forges others.
type upload struct {
	key            flow.Key
	client, server netip.AddrPort
	known          bool          // the forger uses the connection's sequence numbers
	byPort         bool          // the rule asks for the server's port, not for a verdict
	received       atomic.Uint64 // bytes that the server has read
	sequence       atomic.Uint32 // number of the client's last packet
	socket         int           // AF_PACKET
	router         unix.SockaddrLinklayer
}

func (u *upload) String() string {
	return fmt.Sprintf("%v, rule by port: %v, numbers known: %v", u.key, u.byPort, u.known)
}

func newUpload(t *testing.T, r *lab.Routed, server string) *upload {
	t.Helper()
	ctx := testContext(t)
	u := &upload{}
	listener, err := r.Server.Listen(ctx, net.JoinHostPort(server, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for packet := make([]byte, 64<<10); ; {
			n, err := conn.Read(packet)
			if err != nil {
				return
			}
			u.received.Add(uint64(n))
		}
	}()
	conn, err := r.Client.Dial(ctx, "tcp", "", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	u.client, u.server = conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	u.key, _ = flow.MakeKey(flow.TCP, u.client, u.server, 0)
	u.listen(t, r)
	go func() {
		for part := make([]byte, 64<<10); ; {
			if _, err := conn.Write(part); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // leave the CPU to the others
		}
	}()
	return u
}

// listen notes the sequence numbers of the client's packets from now on.
func (u *upload) listen(t *testing.T, r *lab.Routed) {
	t.Helper()
	client, err := r.Client.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	router, err := r.Router.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	u.router = unix.SockaddrLinklayer{Ifindex: client.Attrs().Index, Protocol: onWire(unix.ETH_P_IP), Halen: 6}
	ports := 20 // offset of the TCP header: no IPv4 options
	if u.server.Addr().Is6() {
		u.router.Protocol, ports = onWire(unix.ETH_P_IPV6), 40
	}
	copy(u.router.Addr[:], router.Attrs().HardwareAddr)
	err = r.Client.Do(func() (err error) {
		// SOCK_DGRAM: the kernel writes and removes the Ethernet header.
		if u.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// Only a socket for all protocols sees what the host itself sends.
		return unix.Bind(u.socket, &unix.SockaddrLinklayer{Ifindex: u.router.Ifindex, Protocol: onWire(unix.ETH_P_ALL)})
	})
	if err == nil { // so that the reader sees the end
		err = unix.SetsockoptTimeval(u.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	}
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-done
		unix.Close(u.socket)
	})
	go func() {
		defer close(done)
		for packet := make([]byte, 64); ; {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(u.socket, packet, 0)
			if err != nil {
				continue // the time is up
			}
			if link, ok := from.(*unix.SockaddrLinklayer); !ok || link.Protocol != u.router.Protocol || n < ports+8 {
				continue
			}
			source, destination := binary.BigEndian.Uint16(packet[ports:]), binary.BigEndian.Uint16(packet[ports+2:])
			if source == u.client.Port() && destination == u.server.Port() {
				u.sequence.Store(binary.BigEndian.Uint32(packet[ports+4:]))
			}
		}
	}()
}

// onWire is a protocol's number in network byte order.
func onWire(protocol uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
}

// forge sends RST and SYN as from the client.
func (u *upload) forge() error {
	const syn, rst = 2, 4
	wrong := u.sequence.Load() + 1<<30
	frames := []packettest.Spec{{TCPFlags: rst, Seq: wrong}, {TCPFlags: syn, Seq: wrong}}
	if u.known { // those of the connection, and of the flow that the last SYN began
		frames = []packettest.Spec{{TCPFlags: rst, Seq: wrong - 1<<30}, {TCPFlags: rst, Seq: wrong + 1}, {TCPFlags: syn, Seq: wrong}}
	}
	for _, frame := range frames {
		frame.IPv6, frame.Src, frame.Dst = u.server.Addr().Is6(), u.client, u.server
		if err := unix.Sendto(u.socket, frame.Build().Data, 0, &u.router); err != nil {
			return err
		}
	}
	return nil
}
