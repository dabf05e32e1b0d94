// SPDX-License-Identifier: Apache-2.0

package flow

import "net/netip"

// DNSAnswer is a packet from UDP port 53 with the bit QR (RFC 1035, section 4.1.1), as a
// DNS server sent it. Nothing else in it has been checked.
type DNSAnswer struct {
	Time    int64      // CLOCK_MONOTONIC, in ns
	Client  netip.Addr // who gets the answer
	Server  netip.Addr // who sent it
	Message []byte     // the UDP payload, at most 1232 bytes
	Length  int        // bytes of the payload on the wire
}
