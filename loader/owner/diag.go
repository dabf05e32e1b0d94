// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
)

// diag asks the kernel about sockets of the network namespace in which it was opened
// (sock_diag(7)). It is not safe for concurrent use.
type diag struct {
	fd     int
	seq    uint32
	buffer []byte
}

// socket is what the kernel says about a socket.
type socket struct {
	local, remote netip.AddrPort
	state         uint8
	inode         uint64 // 0: it has no file any more
	cookie        uint64
}

// Sizes and numbers of linux/sock_diag.h and linux/inet_diag.h.
const (
	sockDiagByFamily = 20
	reqLength        = 56 // struct inet_diag_req_v2
	msgLength        = 72 // struct inet_diag_msg
	nlmsgHeader      = 16
	tcpListen        = 10 // TCP_LISTEN, net/tcp_states.h
	allStates        = 0xffffffff
	noCookie         = 0xffffffff // INET_DIAG_NOCOOKIE
)

var errNoSocket = errors.New("no such socket")

func newDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open a socket to ask for sockets: %w", err)
	}
	// The kernel answers at once, or not at all.
	timeout := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, errors.Join(fmt.Errorf("socket for sockets: %w", err), unix.Close(fd))
	}
	return &diag{fd: fd, buffer: make([]byte, 1<<16)}, nil
}

func (d *diag) close() error { return unix.Close(d.fd) }

// find returns the socket that gets what remote sends to local. It may be one that is not
// connected, or that listens.
func (d *diag) find(proto flow.Proto, local, remote netip.AddrPort, ifindex int) (s socket, err error) {
	// udp_dump_one swaps the ends, "for historical reasons".
	src, dst := local, remote
	if proto == flow.UDP {
		src, dst = remote, local
	}
	err = errNoSocket
	failed := d.ask(proto, src, dst, ifindex, 0, func(found socket) { s, err = found, nil })
	return s, errors.Join(err, failed)
}

// all calls each with every socket of a protocol and address family.
func (d *diag) all(proto flow.Proto, is6 bool, each func(socket)) error {
	none := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if is6 {
		none = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return d.ask(proto, none, none, 0, unix.NLM_F_DUMP, each)
}

// ask sends a request and hands the answers to each.
func (d *diag) ask(proto flow.Proto, src, dst netip.AddrPort, ifindex int, flags uint16, each func(socket)) error {
	d.seq++
	family := uint8(unix.AF_INET)
	if src.Addr().Is6() {
		family = unix.AF_INET6
	}
	order := binary.NativeEndian
	m := make([]byte, 0, nlmsgHeader+reqLength)
	m = order.AppendUint32(m, nlmsgHeader+reqLength)
	m = order.AppendUint16(m, sockDiagByFamily)
	m = order.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = order.AppendUint32(m, d.seq)
	m = append(m, 0, 0, 0, 0, family, uint8(proto), 0, 0)
	m = order.AppendUint32(m, allStates)
	m = binary.BigEndian.AppendUint16(m, src.Port())
	m = binary.BigEndian.AppendUint16(m, dst.Port())
	for _, addr := range []netip.Addr{src.Addr(), dst.Addr()} {
		var room [16]byte
		copy(room[:], addr.AsSlice())
		m = append(m, room[:]...)
	}
	m = order.AppendUint32(m, uint32(ifindex))
	m = order.AppendUint32(m, noCookie)
	m = order.AppendUint32(m, noCookie)
	if err := unix.Sendto(d.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask for sockets: %w", err)
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list of sockets: %w", err)
		}
		done, err := d.answer(d.buffer[:n], flags, each)
		if done || err != nil {
			return err
		}
	}
}

// answer reads the messages of one datagram.
func (d *diag) answer(data []byte, flags uint16, each func(socket)) (done bool, err error) {
	order := binary.NativeEndian
	for len(data) >= nlmsgHeader {
		length := int(order.Uint32(data))
		if length < nlmsgHeader || length > len(data) {
			return true, errors.New("list of sockets: damaged message")
		}
		kind, seq, body := order.Uint16(data[4:]), order.Uint32(data[8:]), data[nlmsgHeader:length]
		data = data[min((length+3)&^3, len(data)):]
		if seq != d.seq { // of an earlier question that was given up
			continue
		}
		switch kind {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, errors.New("list of sockets: damaged message")
			}
			errno := unix.Errno(-int32(order.Uint32(body)))
			if errno == unix.ENOENT || errno == 0 {
				return true, nil
			}
			return true, fmt.Errorf("list of sockets: %w", errno)
		case sockDiagByFamily:
			if len(body) < msgLength {
				return true, errors.New("list of sockets: damaged message")
			}
			each(socketOf(body))
			if flags&unix.NLM_F_DUMP == 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// socketOf reads a struct inet_diag_msg.
func socketOf(body []byte) socket {
	addr := func(at int) netip.Addr {
		if body[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(body[at : at+4]))
		}
		return netip.AddrFrom16([16]byte(body[at : at+16]))
	}
	order := binary.NativeEndian
	return socket{
		state:  body[1],
		local:  netip.AddrPortFrom(addr(8), binary.BigEndian.Uint16(body[4:])),
		remote: netip.AddrPortFrom(addr(24), binary.BigEndian.Uint16(body[6:])),
		cookie: uint64(order.Uint32(body[44:])) | uint64(order.Uint32(body[48:]))<<32,
		inode:  uint64(order.Uint32(body[68:])),
	}
}
