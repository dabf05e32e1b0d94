// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/netip"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/nanos"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/internal/vector"
)

// Of says to which flow of a capture a packet belongs.
type Of struct {
	Number   int // see Flow
	Key      flow.Key
	Src      netip.AddrPort // sender of the flow's first packet
	Payloads int            // packets of the flow so far that a model can read
}

// Step is one packet that belongs to a flow.
type Step struct {
	Flow   Of
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
	table  *table
	twins  twins
	passed [vector.Reasons]int
	start  time.Time

	left   int // packets left out: they were counted on another interface
	hidden int // packets that look like twins of others, and are counted
	bare   int // flows with payload of which nothing was captured
}

// NewWalker returns a Walker over the packets of a capture.
func NewWalker(reader *capture.Reader) *Walker {
	return &Walker{reader: reader, table: newTable()}
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
		if reason == vector.OK {
			twin, hidden := w.twins.twin(&read, &packet)
			if hidden {
				w.hidden++
			}
			if twin {
				w.left++
				continue
			}
		}
		w.passed[reason]++
		if reason != vector.OK {
			continue
		}
		return w.add(&read, &packet), nil
	}
}

// add counts a packet of a flow.
func (w *Walker) add(read *capture.Packet, packet *vector.Packet) Step {
	key, fromA := flow.MakeKey(flow.Proto(packet.Proto), packet.Src, packet.Dst, 0)
	number, found, fresh := w.table.find(&key)
	now := nanos.Pack(read.Time)
	if fresh {
		found.firstB, found.first, found.last = !fromA, now, now
	}
	found.packets++
	found.bytes += uint64(packet.Length)
	// Packets that came through several queues may be out of order.
	found.first, found.last = min(found.first, now), max(found.last, now)
	step := Step{Data: read.Data, Packet: *packet, FromA: fromA, Raw: read.Raw, Time: read.Time, Sampled: packet.Sampled()}
	bare := found.payloads == 0 && found.cut > 0
	switch {
	case step.Sampled:
		found.payloads++
	case packet.Captured == 0 && packet.Length > packet.Payload && !packet.IsDNS() && found.cut < math.MaxUint16:
		found.cut++
	}
	if now := found.payloads == 0 && found.cut > 0; now != bare {
		if now {
			w.bare++
		} else {
			w.bare--
		}
	}
	step.Flow = Of{Number: number, Key: key, Payloads: int(found.payloads)}
	step.Flow.Src, _ = found.ends(&key)
	return step
}

// Len returns the number of flows so far.
func (w *Walker) Len() int { return w.table.n }

// Flow returns a flow by its number.
func (w *Walker) Flow(number int) Flow { return w.table.flow(number) }

// Flows returns the flows so far, in the order of their first packets.
func (w *Walker) Flows() iter.Seq[Flow] { return w.table.all() }

// Start returns the time of the capture's first IP packet.
func (w *Walker) Start() time.Time { return w.start }

// Passed returns the number of IP packets that had the given result of vector.Parse.
func (w *Walker) Passed(reason vector.Reason) int { return w.passed[reason] }

// LeftOut returns the number of packets that were left out because the capture has them
// from another interface too.
func (w *Walker) LeftOut() int { return w.left }

// Warnings says what is odd about the packets so far, and what was left out.
func (w *Walker) Warnings() []error {
	all := w.reader.Warnings()
	say := func(format string, args ...any) {
		all = append(all, fmt.Errorf("capture %q: "+format, append([]any{w.reader.Name()}, args...)...))
	}
	if w.left > 0 {
		say("left out %s that another interface of the capture had too: each packet counts once", tui.Plural(w.left, "packet"))
	}
	if w.hidden > 0 {
		say("%s came twice and count twice: Linux cooked captures (v1) do not say on which interface; "+
			"record with tcpdump -i any -y LINUX_SLL2, or on one interface", tui.Plural(w.hidden, "packet"))
	}
	if w.bare > 0 {
		say("only the headers of %s were captured, so nothing can be said about their payload; record with tcpdump -s 0", tui.Plural(w.bare, "flow"))
	}
	return all
}

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
