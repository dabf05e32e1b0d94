// SPDX-License-Identifier: Apache-2.0

// Package wire reads what the first payload packets of a flow say by themselves: the
// application protocol, the server name, and the JA4 fingerprint of a client.
//
// Its input comes from strangers. Everything is bounded: the packets of a flow that are
// looked at, the bytes that are kept for a hello in several pieces, and the work for each
// packet.
package wire

import "github.com/dpclass/dpclass/flow"

// Packet is one payload packet of a flow.
type Packet struct {
	Proto            flow.Proto
	FromA            bool // sent by the endpoint that is A in the flow's key
	SrcPort, DstPort uint16
	Seq              uint32 // TCP: sequence number of the payload's first byte
	Payload          []byte // as far as it was captured, not empty; only valid during the call
	Length           int    // bytes of payload on the wire; at least len(Payload)
}
