// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/dpclass/dpclass/internal/fault"
)

// deviceByName finds an interface of the calling thread's namespace.
func deviceByName(iface string) (netlink.Link, error) {
	device, err := netlink.LinkByName(iface)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, fault.Advise(fmt.Errorf("interface %q does not exist", iface),
			`list the interfaces: ip link (in another namespace: --netns NAME)`)
	}
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", iface, err)
	}
	return device, nil
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
