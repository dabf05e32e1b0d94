// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a [Wire].
type End struct {
	Host  *Host
	Iface string   // name of the device, for example eth0
	Addrs []string // with prefix length, for example 10.0.1.1/24 or fd00:1::1/64
	MAC   string   // "": the kernel chooses one
}

// Wire describes a veth pair between two hosts.
type Wire struct {
	A, B End
	MTU  int // 0: 1500
	// NoOffload turns off the offloads of both ends, see [Host.SetOffload].
	NoOffload bool
}

// Wire creates the pair and waits until both ends are up.
func (l *Lab) Wire(w Wire) error {
	if w.MTU == 0 {
		w.MTU = 1500
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = w.A.Iface, w.MTU
	// If both ends get the same index, which is likely in two new namespaces, the kernel takes up to a second to begin
	// sending: linkwatch delays a device whose peer has the same index.
	attrs.Index = firstIndex + int(l.wires.Add(1))
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: w.B.Iface, PeerNamespace: netlink.NsFd(w.B.Host.handle)}
	err := w.A.Host.Do(func() error { return netlink.LinkAdd(veth) })
	if err != nil {
		return fmt.Errorf("wire %s/%s to %s/%s: %w", w.A.Host.name, w.A.Iface, w.B.Host.name, w.B.Iface, err)
	}
	for _, end := range []End{w.A, w.B} {
		if err := end.setUp(w); err != nil {
			return fmt.Errorf("device %q of host %q: %w", end.Iface, end.Host.name, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), upTime)
	defer cancel()
	for _, end := range []End{w.A, w.B} {
		// The device drops what it should send before it is up.
		err := Until(ctx, fmt.Sprintf("device %q of host %q to be up", end.Iface, end.Host.name), func() (bool, error) {
			link, err := end.Host.Link(end.Iface)
			return err == nil && link.Attrs().OperState == netlink.OperUp, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	firstIndex = 1000            // of wires; the kernel's own numbers begin at 1
	upTime     = 5 * time.Second // limit for a device to come up
)

func (e End) setUp(w Wire) error {
	if w.NoOffload {
		if err := e.Host.SetOffload(e.Iface, false); err != nil {
			return err
		}
	}
	return e.Host.Do(func() error {
		link, err := netlink.LinkByName(e.Iface)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(link, w.MTU); err != nil {
			return err
		}
		if e.MAC != "" {
			mac, err := net.ParseMAC(e.MAC)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
				return err
			}
		}
		if err := addAddrs(link, e.Addrs, false); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
}

// addAddrs gives a device addresses. An IPv6 address that the host should not send from by
// itself is deprecated (RFC 4862, section 5.5.4).
func addAddrs(link netlink.Link, addrs []string, deprecated bool) error {
	for _, text := range addrs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
			if deprecated {
				addr.PreferedLft, addr.ValidLft = 0, math.MaxUint32 // for ever
			}
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", text, err)
		}
	}
	return nil
}
