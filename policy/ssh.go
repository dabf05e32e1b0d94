// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/dpclass/dpclass/flow"
)

// SSHFlow returns the flow of an SSH connection. A policy that is applied over the
// connection protects it. connection is the value of $SSH_CONNECTION: client address
// and port, server address and port. ok is false if it has another form.
func SSHFlow(connection string) (key flow.Key, ok bool) {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return flow.Key{}, false
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(words[2*i])
		if err != nil {
			return flow.Key{}, false
		}
		port, err := strconv.ParseUint(words[2*i+1], 10, 16)
		if err != nil {
			return flow.Key{}, false
		}
		ends[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	return tcpKey(ends[0], ends[1])
}

// tcpKey returns the key of a connection. ok is false if one end is IPv4 and one is IPv6.
func tcpKey(a, b netip.AddrPort) (key flow.Key, ok bool) {
	if a.Addr().Unmap().Is4() != b.Addr().Unmap().Is4() {
		return flow.Key{}, false
	}
	key, _ = flow.MakeKey(flow.TCP, a, b, 0)
	return key, true
}
