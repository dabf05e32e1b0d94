// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
)

// Flow is one flow of a capture file: all packets of a 5-tuple in that file, however
// often the connection ends and starts again.
type Flow struct {
	Key         flow.Key
	Src, Dst    netip.AddrPort // endpoints of the first packet
	Packets     uint64
	Bytes       uint64 // IP bytes on the wire
	Payloads    int    // packets that a model can read
	First, Last time.Time
	Number      int // from 0, in the order of the first packets
}

// Step is one packet that belongs to a flow.
type Step struct {
	Flow   *Flow
	Data   []byte // from the IP header on; valid until the next packet
	Packet vector.Packet
	FromA  bool // sent by the key's endpoint A
	Raw    bool // the frame has no link layer, as on a tun device
	Time   time.Time
	// Sampled reports whether a model can read the packet. If so, it is number
	// Flow.Payloads-1 of such packets in its flow.
	Sampled bool
}

// Walker reads the flows of a capture.
type Walker struct {
	reader *capture.Reader
	flows  map[flow.Key]*Flow
	list   []*Flow
	passed [vector.Reasons]int
	start  time.Time
}

// NewWalker returns a Walker over the packets of a capture.
func NewWalker(reader *capture.Reader) *Walker {
	return &Walker{reader: reader, flows: map[flow.Key]*Flow{}}
}

// Next returns the next packet that belongs to a flow. Its errors are those of
// capture.Reader.Next.
func (w *Walker) Next() (Step, error) {
	for {
		read, err := w.reader.Next()
		if err != nil {
			return Step{}, err
		}
		if w.start.IsZero() {
			w.start = read.Time
		}
		packet, reason := vector.Parse(read.Data, read.Length)
		w.passed[reason]++
		if reason != vector.OK {
			continue
		}
		key, fromA := flow.MakeKey(flow.Proto(packet.Proto), packet.Src, packet.Dst, 0)
		found := w.flows[key]
		if found == nil {
			found = &Flow{Key: key, Src: packet.Src, Dst: packet.Dst, First: read.Time, Last: read.Time, Number: len(w.list)}
			w.flows[key] = found
			w.list = append(w.list, found)
		}
		found.Packets++
		found.Bytes += uint64(packet.Length)
		// Packets that came through several queues may be out of order.
		if read.Time.Before(found.First) {
			found.First = read.Time
		}
		if read.Time.After(found.Last) {
			found.Last = read.Time
		}
		step := Step{Flow: found, Data: read.Data, Packet: packet, FromA: fromA, Raw: read.Raw, Time: read.Time, Sampled: packet.Sampled()}
		if step.Sampled {
			found.Payloads++
		}
		return step, nil
	}
}

// Flows returns the flows so far, in the order of their first packets.
func (w *Walker) Flows() []*Flow { return w.list }

// Start returns the time of the capture's first IP packet.
func (w *Walker) Start() time.Time { return w.start }

// Passed returns the number of IP packets that had the given result of vector.Parse.
func (w *Walker) Passed(reason vector.Reason) int { return w.passed[reason] }

// Count returns the number of flows with payload in a capture file, and the number of
// their payload packets. Of a damaged capture it counts the part before the damage.
func Count(ctx context.Context, name string) (flows, packets int, err error) {
	reader, err := capture.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer reader.Close()
	walker := NewWalker(reader)
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || (errors.As(err, &damage) && damage.Packets > 0) {
			return flows, packets, nil
		}
		if err != nil {
			return 0, 0, err
		}
		if step.Sampled {
			packets++
			if step.Flow.Payloads == 1 {
				flows++
			}
		}
	}
}
