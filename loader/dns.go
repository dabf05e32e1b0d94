// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

const answerHeader = int(unsafe.Sizeof(bpfDnsAnswer{}))

// DNSRing is the DNS answers that pass one interface.
type DNSRing struct {
	iface string
	m     *ebpf.Map
}

// Answers calls fn with each answer until the context ends, and then returns nil. The answer
// is valid during the call only. fn must not block: the kernel counts the answers that do
// not fit into the ring (reason dns_full). There can be one call at a time.
func (r *DNSRing) Answers(ctx context.Context, fn func(*flow.DNSAnswer)) error {
	var answer flow.DNSAnswer
	err := readRing(ctx, r.m, func(raw []byte, _, _ int) {
		if decodeAnswer(raw, &answer) {
			fn(&answer)
		}
	})
	if err != nil {
		return fmt.Errorf("ring of DNS answers of %q: %w", r.iface, err)
	}
	return nil
}

// decodeAnswer decodes a record of the ring and reports whether it is well formed.
func decodeAnswer(raw []byte, answer *flow.DNSAnswer) bool {
	if len(raw) < answerHeader {
		return false
	}
	header := *(*bpfDnsAnswer)(unsafe.Pointer(&raw[0]))
	message := raw[answerHeader:]
	if int(header.Captured) > len(message) {
		return false
	}
	key := keyOf(&header.Key, header.Family)
	server, client := key.A.Addr(), key.B.Addr()
	if header.FromA == 0 {
		server, client = client, server
	}
	*answer = flow.DNSAnswer{
		Time: int64(header.TimeNs), Client: client, Server: server, Message: message[:header.Captured], Length: int(header.Length),
	}
	return true
}
