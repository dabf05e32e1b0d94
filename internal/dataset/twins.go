// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"hash/maphash"
	"time"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/nanos"
	"github.com/dpclass/dpclass/internal/vector"
)

// twins finds packets that a capture holds once for each interface that they crossed, such
// as those of "tcpdump -i any" on a bridge. A packet that was seen on another interface a
// moment ago is a twin. Two packets are the same if they differ at most in what a router
// or a network card changes: type of service, time to live and checksums.
type twins struct {
	seed maphash.Seed
	seen []sighting // by hash; a newer packet replaces an older one
}

type sighting struct {
	sum   uint64
	iface uint64
	time  int64
}

const (
	// twinPlaces is the number of packets that are remembered, a power of two.
	twinPlaces = 1 << 15
	// twinTime is how long after a packet its twin may come. A router queues packets.
	twinTime = int64(time.Second)
	// hiddenTwinTime is the same where the interface is not known: a sender may repeat a
	// packet, but not that soon.
	hiddenTwinTime = int64(5 * time.Millisecond)
)

// twin reports whether the packet is the twin of one before. hidden reports that it looks
// like one, but the capture does not say on which interfaces the two were seen.
func (t *twins) twin(read *capture.Packet, p *vector.Packet) (twin, hidden bool) {
	if read.Interface == 0 {
		return false, false
	}
	if t.seen == nil {
		t.seed, t.seen = maphash.MakeSeed(), make([]sighting, twinPlaces)
	}
	sum, now := t.hash(read.Data, p), nanos.Pack(read.Time)
	before := &t.seen[sum%twinPlaces]
	known := before.sum == sum && before.iface != 0
	if read.Interface == capture.AnyInterface {
		hidden = known && now-before.time >= 0 && now-before.time < hiddenTwinTime
		*before = sighting{sum: sum, iface: read.Interface, time: now}
		return false, hidden
	}
	if age := now - before.time; known && before.iface != read.Interface && age > -twinTime && age < twinTime {
		return true, false
	}
	*before = sighting{sum: sum, iface: read.Interface, time: now}
	return false, false
}

// hash returns a hash of what stays the same of a packet from interface to interface.
func (t *twins) hash(data []byte, p *vector.Packet) uint64 {
	var head [128]byte
	n := copy(head[:], data[:min(len(data), p.Payload)])
	if head[0]>>4 == 4 {
		head[1], head[8], head[10], head[11] = 0, 0, 0, 0
	} else {
		head[0], head[1], head[7] = 0x60, head[1]&15, 0
	}
	checksum := p.L4 + 16
	if p.Proto == vector.UDP {
		checksum = p.L4 + 6
	}
	if checksum+2 <= n {
		head[checksum], head[checksum+1] = 0, 0
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	// Errors cannot happen: a hash takes any bytes.
	_, _ = h.Write(head[:n])
	_, _ = h.Write(data[min(len(data), p.Payload):])
	return h.Sum64()
}
