// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"hash/maphash"
	"iter"
	"net/netip"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/nanos"
)

// Flow is one flow of a capture file: all packets of a 5-tuple in that file, however
// often the connection ends and starts again.
type Flow struct {
	Key         flow.Key
	Src, Dst    netip.AddrPort // endpoints of the first packet
	Packets     uint64
	Bytes       uint64 // IP bytes on the wire
	Payloads    int    // packets that a model can read
	Cut         int    // packets with payload on the wire, none of which was captured
	First, Last time.Time
	Number      int // from 0, in the order of the first packets
}

// table is the flows of a capture: 80 bytes for each, without pointers, and 4 to 11 bytes
// for the index. A capture may have millions.
type table struct {
	seed   maphash.Seed
	slots  []uint32 // number of a flow + 1, 0: free; a power of two, at most 3/4 full
	chunks [][]packed
	n      int
}

// chunkFlows is how many flows are allocated at a time: nothing is moved when more come.
const chunkFlows = 4096

// packed is a flow in the table.
type packed struct {
	tuple    tuple
	firstB   bool   // the first packet came from the key's B
	cut      uint16 // packets without captured payload; stays at the largest number
	payloads uint32
	packets  uint64
	bytes    uint64
	first    int64 // as nanos.Pack packs them; nanos.None: the capture does not say
	last     int64
}

// tuple is a key without pointers. An IPv4 address fills the first 4 bytes of its place.
type tuple struct {
	a, b         [16]byte
	portA, portB uint16
	proto        flow.Proto
	is6          bool
}

func newTable() *table {
	return &table{seed: maphash.MakeSeed(), slots: make([]uint32, 1024)}
}

func pack(key *flow.Key) tuple {
	t := tuple{portA: key.A.Port(), portB: key.B.Port(), proto: key.Proto, is6: key.Is6()}
	for _, end := range []struct {
		to   *[16]byte
		from netip.Addr
	}{{&t.a, key.A.Addr()}, {&t.b, key.B.Addr()}} {
		if t.is6 {
			*end.to = end.from.As16()
		} else {
			four := end.from.As4()
			copy(end.to[:], four[:])
		}
	}
	return t
}

func (t *tuple) key() flow.Key {
	addr := func(from *[16]byte) netip.Addr {
		if t.is6 {
			return netip.AddrFrom16(*from)
		}
		return netip.AddrFrom4([4]byte(from[:4]))
	}
	return flow.Key{A: netip.AddrPortFrom(addr(&t.a), t.portA), B: netip.AddrPortFrom(addr(&t.b), t.portB), Proto: t.proto}
}

// at returns a flow of the table.
func (t *table) at(number int) *packed { return &t.chunks[number/chunkFlows][number%chunkFlows] }

// find returns the flow of a key and its number, a new one if it has none.
func (t *table) find(key *flow.Key) (number int, found *packed, fresh bool) {
	wanted := pack(key)
	slot := t.slot(&wanted)
	if at := t.slots[slot]; at != 0 {
		return int(at - 1), t.at(int(at - 1)), false
	}
	if t.n%chunkFlows == 0 {
		t.chunks = append(t.chunks, make([]packed, chunkFlows))
	}
	t.n++
	t.slots[slot] = uint32(t.n)
	found = t.at(t.n - 1)
	found.tuple = wanted
	if t.n > len(t.slots)/4*3 {
		t.grow()
	}
	return t.n - 1, found, true
}

// slot returns the place of a key in the index, a free one if it is not in the table.
func (t *table) slot(wanted *tuple) uint64 {
	mask := uint64(len(t.slots) - 1)
	for slot := maphash.Comparable(t.seed, *wanted) & mask; ; slot = (slot + 1) & mask {
		if at := t.slots[slot]; at == 0 || t.at(int(at-1)).tuple == *wanted {
			return slot
		}
	}
}

func (t *table) grow() {
	t.slots = make([]uint32, 2*len(t.slots))
	for number := range t.n {
		t.slots[t.slot(&t.at(number).tuple)] = uint32(number + 1)
	}
}

// flow returns a flow of the table.
func (t *table) flow(number int) Flow {
	p := t.at(number)
	f := Flow{
		Key: p.tuple.key(), Packets: p.packets, Bytes: p.bytes, Payloads: int(p.payloads), Cut: int(p.cut),
		First: nanos.Unpack(p.first), Last: nanos.Unpack(p.last), Number: number,
	}
	f.Src, f.Dst = p.ends(&f.Key)
	return f
}

// ends returns the endpoints of the first packet.
func (p *packed) ends(key *flow.Key) (src, dst netip.AddrPort) {
	if p.firstB {
		return key.B, key.A
	}
	return key.A, key.B
}

// all returns the flows in the order of their first packets.
func (t *table) all() iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		for number := range t.n {
			if !yield(t.flow(number)) {
				return
			}
		}
	}
}
