// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
)

// deviceByName finds an interface of the calling thread's namespace.
func deviceByName(iface string) (netlink.Link, error) {
	device, err := linkByName(iface)
	if err == nil && device == nil {
		return nil, noDevice(iface)
	}
	return device, err
}

// noDevice is the error if there is no interface of that name.
func noDevice(iface string) error {
	var names []string
	if all, err := net.Interfaces(); err == nil {
		for _, device := range all {
			names = append(names, device.Name)
		}
	}
	return fault.Advise(fmt.Errorf("interface %q does not exist%s", iface, near.Hint(iface, names)),
		`list the interfaces: ip link (in another namespace: --netns NAME)`)
}

// linkByName returns nil if no interface has the name.
func linkByName(iface string) (netlink.Link, error) {
	device, err := netlink.LinkByName(iface)
	return orNone(device, err, "%q", iface)
}

// linkByIndex returns nil if no interface has the index.
func linkByIndex(ifindex int) (netlink.Link, error) {
	device, err := netlink.LinkByIndex(ifindex)
	return orNone(device, err, "with index %d", ifindex)
}

func orNone(device netlink.Link, err error, format string, which any) (netlink.Link, error) {
	var missing netlink.LinkNotFoundError
	switch {
	case err == nil:
		return device, nil
	case errors.As(err, &missing):
		return nil, nil
	}
	return nil, fmt.Errorf("interface "+format+": %w", which, err)
}

// isL3 reports whether the device's frames begin with the IP header.
func isL3(device netlink.Link) bool {
	switch device.Attrs().EncapType {
	case "none", "ppp", "rawip", "ipip", "sit", "gre", "tunnel6", "ip6gre":
		return true
	}
	return len(device.Attrs().HardwareAddr) == 0 && device.Attrs().EncapType != "ether" && device.Attrs().EncapType != "loopback"
}

// stripsTags reports whether the device removes VLAN tags before XDP sees the frame.
func stripsTags(device netlink.Link) bool {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return false
	}
	defer tool.Close()
	features, err := tool.Features(device.Attrs().Name)
	return err == nil && features["rx-vlan-hw-parse"]
}

// driverOf returns the name of the device's driver, or its type.
func driverOf(device netlink.Link) string {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return device.Type()
	}
	defer tool.Close()
	name, err := tool.DriverName(device.Attrs().Name)
	if err != nil || name == "" {
		return device.Type()
	}
	return name
}
