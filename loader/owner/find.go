// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/flow"
)

var nativeEndian = binary.NativeEndian

// Flow is what a Finder needs to know of a flow.
type Flow struct {
	Proto    flow.Proto
	Src, Dst netip.AddrPort // Src sent the first packet
	Ifindex  int            // of the interface, for sockets that are bound to one; 0: not known

	// First and Last are when its first and last packet were seen. A socket that was closed
	// before or opened after that is another one with the same port.
	First, Last time.Time
}

// Found says what a Finder knows of a flow.
type Found int

// What a Finder knows.
const (
	Known   Found = iota
	Foreign       // no end of it is an address of this network namespace: it is forwarded
	Unknown       // nothing yet; the next packet may find the socket
)

// Finder looks up which process opened the socket of a flow. Its methods may be called from
// several goroutines, and from any network namespace: it stays in the one where it was made.
type Finder struct {
	maps *socketsMaps
	own  bool // Close closes the maps

	mu      sync.Mutex
	diag    *diag
	handle  *netlink.Handle
	local   map[netip.Addr]bool
	localAt time.Time
	holders map[uint64]holder // of sockets that the maps do not have, by inode
	swept   time.Time         // when /proc was read for them last
}

// holder is a process that has a socket open.
type holder struct {
	owner socketsOwner
	known bool
	until time.Time // when to look again
}

func newFinder(maps *socketsMaps) (*Finder, error) {
	f := &Finder{maps: maps, holders: map[uint64]holder{}}
	var err error
	if f.diag, err = newDiag(); err != nil {
		return nil, err
	}
	if f.handle, err = netlink.NewHandle(); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), f.diag.close())
	}
	return f, nil
}

func (f *Finder) closeSockets() error {
	f.handle.Close()
	return f.diag.close()
}

// Find returns the process that opened the flow's socket on this machine. If both ends are
// here, it is that of Src, who began the flow.
func (f *Finder) Find(q *Flow) (Process, Found) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.Proto == flow.TCP {
		return f.tcp(q)
	}
	return f.udp(q)
}

func (f *Finder) tcp(q *Flow) (Process, Found) {
	if !f.isLocal(q.Src.Addr()) && !f.isLocal(q.Dst.Addr()) {
		return Process{}, Foreign
	}
	var passive *socketsOwner
	for _, ends := range [2][2]netip.AddrPort{{q.Src, q.Dst}, {q.Dst, q.Src}} {
		key := socketsConnection{
			Local: wide(ends[0].Addr()), Remote: wide(ends[1].Addr()), LocalPort: ends[0].Port(), RemotePort: ends[1].Port(),
		}
		var o socketsOwner
		if f.maps.Connections.Lookup(&key, &o) != nil || !q.during(&o) {
			continue
		}
		if o.Passive == 0 {
			return o.process(), Known
		}
		passive = &o
	}
	if passive != nil {
		return passive.process(), Known
	}
	for _, ends := range [2][2]netip.AddrPort{{q.Dst, q.Src}, {q.Src, q.Dst}} {
		if !f.isLocal(ends[0].Addr()) {
			continue
		}
		if o, ok := f.listener(ends[0], q); ok {
			if o.Pid == 1 {
				o = f.handedOn(o, ends[0], q.Ifindex)
			}
			return o.process(), Known
		}
	}
	return Process{}, Unknown
}

// listener returns who listened on an address and port, or on all addresses, during a flow.
// The kernel prefers listeners in this order. Those that were closed are still in the map.
func (f *Finder) listener(at netip.AddrPort, q *Flow) (o socketsOwner, ok bool) {
	addrs := []netip.Addr{at.Addr()}
	if at.Addr().Unmap().Is4() {
		addrs = append(addrs, netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}))
	}
	closed, younger := false, false
	for _, addr := range append(addrs, netip.IPv6Unspecified()) {
		key := socketsListener{Addr: wide(addr), Port: at.Port()}
		if f.maps.Listeners.Lookup(&key, &o) != nil {
			continue
		}
		if q.during(&o) {
			return o, true
		}
		closed, younger = closed || o.Until != 0, younger || o.Until == 0
	}
	if !closed || younger {
		return socketsOwner{}, false
	}
	// Of several listeners on one port (SO_REUSEPORT), the map has the last one only.
	o = f.handedOn(socketsOwner{}, at, q.Ifindex)
	return o, o.Pid != 0
}

// handedOn returns who has a listening socket that pid 1 opened: systemd hands sockets to
// the services that it starts.
func (f *Finder) handedOn(first socketsOwner, at netip.AddrPort, ifindex int) socketsOwner {
	s, err := f.diag.find(flow.TCP, at, netip.AddrPortFrom(unspecified(at.Addr()), 0), ifindex)
	if err != nil {
		return first
	}
	if o, ok := f.holder(s.inode); ok {
		return o
	}
	return first
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (f *Finder) udp(q *Flow) (Process, Found) {
	here := false
	for n, ends := range [2][2]netip.AddrPort{{q.Src, q.Dst}, {q.Dst, q.Src}} {
		addr := ends[0].Addr()
		if !f.isLocal(addr) && (n == 0 || !addr.IsMulticast() && !isBroadcast(addr)) {
			continue
		}
		here = true
		if s, err := f.diag.find(flow.UDP, ends[0], ends[1], q.Ifindex); err == nil {
			var o socketsOwner
			if f.maps.UdpSockets.Lookup(&s.cookie, &o) == nil {
				if q.during(&o) {
					return o.process(), Known
				}
				// It is younger than the flow, which another socket had.
			} else if o, ok := f.holder(s.inode); ok {
				// The next look-up is fast, and finds it after the socket is closed.
				o.Since = 0
				_ = f.maps.UdpSockets.Update(&s.cookie, &o, ebpf.UpdateNoExist)
				return o.process(), Known
			}
		}
		port, o := uint32(ends[0].Port()), socketsOwner{}
		if f.maps.UdpClosed.Lookup(&port, &o) == nil && q.during(&o) {
			return o.process(), Known
		}
	}
	if !here {
		return Process{}, Foreign
	}
	return Process{}, Unknown
}

func isBroadcast(addr netip.Addr) bool {
	four := addr.Unmap()
	return four.Is4() && four.As4()[3] == 255
}

// during reports whether the process had the socket while the flow lasted.
func (q *Flow) during(o *socketsOwner) bool {
	now, wall := monotonic(), time.Now()
	at := func(kernel uint64) time.Time { return wall.Add(time.Duration(int64(kernel) - now)) }
	if o.Since != 0 && !q.Last.IsZero() && at(o.Since).After(q.Last.Add(slack)) {
		return false
	}
	return o.Until == 0 || q.First.IsZero() || !at(o.Until).Before(q.First.Add(-slack))
}

// localFor is how long the list of local addresses is used before an address that is not in
// it makes the finder read it again.
const localFor = 100 * time.Millisecond

// isLocal reports whether an address is one of this network namespace.
func (f *Finder) isLocal(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() || f.local[addr] {
		return true
	}
	if time.Since(f.localAt) < localFor {
		return false
	}
	f.localAt = time.Now()
	all, err := f.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return false
	}
	f.local = map[netip.Addr]bool{}
	for _, one := range all {
		if ip, ok := netip.AddrFromSlice(one.IP); ok {
			f.local[ip.Unmap()] = true
		}
	}
	return f.local[addr]
}
