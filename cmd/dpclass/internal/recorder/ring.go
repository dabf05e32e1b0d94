// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/fault"
)

// ring reads the packets of an interface through memory that is shared with the kernel
// (packet(7), TPACKET_V3).
type ring struct {
	fd       int
	memory   []byte
	block    int // next one to read
	link     int // link type of the frames
	loopback bool

	received, lost uint64 // as the kernel counts
}

// frame is a packet as it was sent or received. It is valid until the next call of read.
type frame struct {
	at       time.Time
	link     []byte // link-layer header, with its VLAN tag; empty for devices that have none
	ip       []byte // from the network header on
	length   int    // bytes on the wire from the network header on
	outgoing bool
	offload  offload
}

// offload is the part of struct virtio_net_hdr that says what the device still has to do
// (or has undone) about a packet.
type offload struct {
	gso  uint8
	size int // bytes of payload in each segment

	partial bool // the checksum is not complete
}

// The kernel's numbers: linux/if_packet.h and linux/virtio_net.h.
const (
	blockSize     = 1 << 20
	blocks        = 64
	frameSize     = 1 << 11
	retireMs      = 20 // a block that is not full is handed over after this time
	vnetHeader    = 10 // struct virtio_net_hdr
	packetHeader  = 48 // struct tpacket3_hdr
	vlanValid     = 1 << 4
	vlanTPID      = 1 << 6
	needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	gsoTCP4       = 1
	gsoTCP6       = 4
	gsoUDP        = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN        = 0x80
	etherHeader   = 14
)

// Rights is the advice where packets or sockets cannot be read.
const Rights = "run as root, or with CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"

func openRing(device netlink.Link) (r *ring, err error) {
	// No packets before bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Advise(fmt.Errorf("open a socket for packets: %w", err), Rights)
	}
	r = &ring{fd: fd, link: capture.LinkRaw}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("read the packets of %q: %w", device.Attrs().Name, err), r.close())
			r = nil
		}
	}()
	switch device.Attrs().EncapType {
	case "ether":
		r.link = capture.LinkEthernet
	case "loopback":
		r.link, r.loopback = capture.LinkEthernet, true
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return r, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return r, err
	}
	request := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blocks, Frame_size: frameSize, Frame_nr: blockSize / frameSize * blocks, Retire_blk_tov: retireMs,
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return r, err
	}
	if r.memory, err = unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return r, err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return r, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Attrs().Index})
}

func (r *ring) close() error {
	var err error
	if r.memory != nil {
		err = unix.Munmap(r.memory)
		r.memory = nil
	}
	return errors.Join(err, unix.Close(r.fd))
}

// errDown says that the interface is down or gone.
var errDown = errors.New("the interface is down")

// read hands the packets that are there to each, at most a block of them, and waits for them
// at most as long as wait says.
func (r *ring) read(ctx context.Context, wait time.Duration, each func(*frame) error) error {
	block := r.memory[r.block*blockSize : (r.block+1)*blockSize]
	status := (*uint32)(unsafe.Pointer(&block[8])) // struct tpacket_hdr_v1, after the version and an offset
	if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
		poll := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN | unix.POLLERR}}
		if _, err := unix.Poll(poll, int(wait.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for packets: %w", err)
		}
		if poll[0].Revents&unix.POLLERR != 0 {
			if code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && unix.Errno(code) == unix.ENETDOWN {
				return errDown
			}
		}
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 || ctx.Err() != nil {
			return nil
		}
	}
	order := binary.NativeEndian
	var err error
	var f frame
	at := int(order.Uint32(block[16:]))
	for range order.Uint32(block[12:]) {
		packet := block[at:]
		if r.parse(packet, &f) {
			if err = each(&f); err != nil {
				break
			}
		}
		at += int(order.Uint32(packet))
	}
	atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
	r.block = (r.block + 1) % blocks
	return err
}

// parse reads a packet that begins with a struct tpacket3_hdr. It reports false for one that
// the other direction of a loopback device has too.
func (r *ring) parse(packet []byte, f *frame) bool {
	order := binary.NativeEndian
	captured, length, status := int(order.Uint32(packet[12:])), int(order.Uint32(packet[16:])), order.Uint32(packet[20:])
	mac, network := int(order.Uint16(packet[24:])), int(order.Uint16(packet[26:]))
	address := packet[packetHeader:] // struct sockaddr_ll
	f.outgoing = address[10] == unix.PACKET_OUTGOING
	if r.loopback && f.outgoing {
		return false
	}
	f.at = time.Unix(int64(order.Uint32(packet[4:])), int64(order.Uint32(packet[8:])))
	header := packet[mac-vnetHeader : mac]
	f.offload = offload{gso: header[1] &^ gsoECN, size: int(order.Uint16(header[4:])), partial: header[0]&needsChecksum != 0}
	data := packet[mac : mac+captured]
	start := min(network-mac, captured)
	if r.link == capture.LinkEthernet {
		start = min(etherHeader, captured)
	}
	f.link, f.ip, f.length = data[:start:start], data[start:], length-start
	if r.link != capture.LinkEthernet {
		f.link = nil
		return true
	}
	if status&vlanValid != 0 && start == etherHeader {
		tpid := uint16(0x8100)
		if status&vlanTPID != 0 {
			tpid = order.Uint16(packet[36:])
		}
		tagged := append(make([]byte, 0, etherHeader+4), data[:12]...)
		tagged = binary.BigEndian.AppendUint16(tagged, tpid)
		tagged = binary.BigEndian.AppendUint16(tagged, uint16(order.Uint32(packet[32:])))
		f.link = append(tagged, data[12:14]...)
	}
	return true
}

// count adds what the kernel has counted since the last call.
func (r *ring) count() {
	stats, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return
	}
	r.received += uint64(stats.Packets)
	r.lost += uint64(stats.Drops)
}
