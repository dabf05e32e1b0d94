// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool commands that each set one offload (linux/ethtool.h).
const (
	ethtoolSetRxChecksum = 0x15
	ethtoolSetTxChecksum = 0x17
	ethtoolSetSG         = 0x19
	ethtoolSetTSO        = 0x1f
	ethtoolSetGSO        = 0x24
	ethtoolSetGRO        = 0x2c
)

// SetOffload turns the offloads of a device on or off: checksums, scatter-gather, TSO,
// GSO and GRO. With all off, the kernel sees packets as they are on the wire, with
// their checksums.
func (h *Host) SetOffload(iface string, on bool) error {
	commands := []uint32{ethtoolSetGRO, ethtoolSetGSO, ethtoolSetTSO, ethtoolSetSG, ethtoolSetTxChecksum, ethtoolSetRxChecksum}
	if on {
		// TSO needs scatter-gather, which needs checksums.
		for i, j := 0, len(commands)-1; i < j; i, j = i+1, j-1 {
			commands[i], commands[j] = commands[j], commands[i]
		}
	}
	return h.Do(func() error {
		for _, command := range commands {
			// Some devices cannot switch some of these offloads.
			if err := ethtool(iface, command, on); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				return fmt.Errorf("host %q: ethtool command %#x on %q: %w", h.name, command, iface, err)
			}
		}
		return nil
	})
}

// ethtool runs one SIOCETHTOOL command in the thread's namespace.
func ethtool(iface string, command uint32, on bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	var request struct { // struct ifreq with ifr_data
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], iface)
	request.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
