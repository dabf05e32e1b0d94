// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/dpclass/dpclass/flow"

// guess recognises the protocols that need no reassembly. It is what is kept of a flow
// between its packets; the zero value is ready.
type guess struct {
	protocol flow.Protocol
	open     bool // the next packets may still change the protocol, or recognise one
}

// add looks at the next packet.
func (g *guess) add(*Packet) {}
