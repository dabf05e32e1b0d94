// SPDX-License-Identifier: Apache-2.0

package netns

import "github.com/vishvananda/netns"

// IsNamed reports whether "ip netns" lists the namespace under the name. A deleted one
// lives on as long as a process has it open.
func IsNamed(ns Handle, name string) bool {
	now, err := netns.GetFromName(name)
	if err != nil {
		return false
	}
	defer now.Close()
	return now.Equal(ns)
}
