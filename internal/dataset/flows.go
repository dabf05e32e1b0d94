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

// Flow is one flow of a capture file: all packets of a 5-tuple in that file.
// Endings and generations exist only live.
type Flow struct {
	Key         flow.Key
	Src, Dst    netip.AddrPort // of the first packet
	Packets     uint64
	Bytes       uint64 // IP bytes on the wire
	Payloads    int    // packets that a model could decide on
	First, Last time.Time
	Number      int // of the flow in its file, from 0 in the order of the first packets
}

// Step is one packet of a flow.
type Step struct {
	Flow   *Flow
	Data   []byte // from the IP header on; valid until the next packet
	Packet vector.Packet
	Time   time.Time
	// Sampled tells whether a model decides on the packet. Its index among those
	// of the flow is then Flow.Payloads - 1.
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

// NewWalker walks over the packets that reader gives.
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
		key, _ := flow.MakeKey(flow.Proto(packet.Proto), packet.Src, packet.Dst, 0)
		found := w.flows[key]
		if found == nil {
			found = &Flow{Key: key, Src: packet.Src, Dst: packet.Dst, First: read.Time, Last: read.Time, Number: len(w.list)}
			w.flows[key] = found
			w.list = append(w.list, found)
		}
		found.Packets++
		found.Bytes += uint64(packet.Length)
		// Packets of several queues may stand out of order.
		if read.Time.Before(found.First) {
			found.First = read.Time
		}
		if read.Time.After(found.Last) {
			found.Last = read.Time
		}
		step := Step{Flow: found, Data: read.Data, Packet: packet, Time: read.Time, Sampled: packet.Sampled()}
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

// Passed returns how many IP packets belong to no flow for the given reason.
func (w *Walker) Passed(reason vector.Reason) int { return w.passed[reason] }

// Count returns how many flows with payload, and payload packets, a capture file
// has. A damaged capture counts as far as it goes.
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
