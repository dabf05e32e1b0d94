// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"hash/maphash"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/nanos"
)

// list is the flows of one read, in 180 bytes each: a record has three times as many, and
// an interface may have hundreds of thousands.
type list struct {
	seed   maphash.Seed
	pages  [][]row
	n      int
	places map[uint64]uint32 // by life

	kinds     []kind
	kindAt    map[kind]uint32
	texts     []texts
	textsAt   map[texts]uint32
	ordered   []uint32 // rows that are kept, in order
	totalRate float64  // of the rows that are kept
}

const pageRows = 1024

// row is a record without what many records have in common.
type row struct {
	src, dst         [16]byte // IPv4-mapped if the kind is IPv4
	srcPort, dstPort uint16
	kind, texts      uint32
	generation       uint32
	confidence       [flow.NumTasks]float64
	packets, bytes   uint64
	packetsIn        uint64
	bytesIn          uint64
	packetsOut       uint64
	bytesOut         uint64
	dropped          uint64
	droppedBytes     uint64
	first, last      int64
	rate, dropRate   float64
}

// kind is what many records have in common: a record and its live part without the fields
// of row and texts.
type kind struct {
	record flow.Record
	live   flow.Live
	isLive bool
	is4    bool
}

// texts is what single flows say.
type texts struct{ name, source, alpn, ja4 string }

func newList(seed maphash.Seed) *list {
	return &list{seed: seed, places: map[uint64]uint32{}, kindAt: map[kind]uint32{}, textsAt: map[texts]uint32{}}
}

func (l *list) at(i uint32) *row { return &l.pages[i/pageRows][i%pageRows] }

// life returns a hash that names one life of a flow on one interface.
func life(seed maphash.Seed, r *flow.Record) uint64 {
	return maphash.Comparable(seed, lifeOf(r))
}

// add adds a record. A flow that is moving from one table of the kernel to the other comes
// twice, and its counts are added.
func (l *list) add(r *flow.Record) *row {
	name := life(l.seed, r)
	if place, twice := l.places[name]; twice {
		to := l.at(place)
		to.packets, to.bytes = to.packets+r.Packets, to.bytes+r.Bytes
		if r.Live != nil {
			to.packetsIn, to.bytesIn, to.packetsOut = to.packetsIn+r.PacketsIn, to.bytesIn+r.BytesIn, to.packetsOut+r.PacketsOut
			to.bytesOut, to.dropped, to.droppedBytes = to.bytesOut+r.BytesOut, to.dropped+r.Dropped, to.droppedBytes+r.DroppedBytes
		}
		return to
	}
	if l.n%pageRows == 0 {
		l.pages = append(l.pages, make([]row, pageRows))
	}
	l.places[name] = uint32(l.n)
	to := l.at(uint32(l.n))
	l.n++
	*to = row{
		src: r.Src.As16(), dst: r.Dst.As16(), srcPort: r.SrcPort, dstPort: r.DstPort,
		confidence: [flow.NumTasks]float64{flow.Category: r.CategoryConfidence, flow.App: r.AppConfidence},
		packets:    r.Packets, bytes: r.Bytes, first: nanos.Pack(r.FirstSeen), last: nanos.Pack(r.LastSeen),
	}
	k := kind{record: *r, isLive: r.Live != nil, is4: r.Src.Is4()}
	if k.isLive {
		k.live = *r.Live
		to.packetsIn, to.bytesIn, to.packetsOut, to.bytesOut = r.PacketsIn, r.BytesIn, r.PacketsOut, r.BytesOut
		to.dropped, to.droppedBytes, to.generation = r.Dropped, r.DroppedBytes, r.Generation
		k.live.PacketsIn, k.live.BytesIn, k.live.PacketsOut, k.live.BytesOut = 0, 0, 0, 0
		to.rate, to.dropRate = r.Rate, r.DroppedRate
		k.live.Dropped, k.live.DroppedBytes, k.live.Generation = 0, 0, 0
		k.live.Rate, k.live.DroppedRate = 0, 0
	}
	said := texts{r.Name, r.NameSource, r.ALPN, r.JA4}
	c := &k.record
	c.Live, c.Src, c.Dst, c.SrcPort, c.DstPort = nil, netip.Addr{}, netip.Addr{}, 0, 0
	c.CategoryConfidence, c.AppConfidence, c.Packets, c.Bytes = 0, 0, 0, 0
	c.FirstSeen, c.LastSeen = time.Time{}, time.Time{}
	c.Name, c.NameSource, c.ALPN, c.JA4 = "", "", "", ""
	to.kind = number(&l.kinds, l.kindAt, k)
	to.texts = number(&l.texts, l.textsAt, said)
	return to
}

// number returns the place of a value in a list without repetition.
func number[T comparable](all *[]T, at map[T]uint32, value T) uint32 {
	if last := len(*all) - 1; last >= 0 && (*all)[last] == value {
		return uint32(last) // most often; to hash it takes longer
	}
	n, known := at[value]
	if !known {
		n = uint32(len(*all))
		at[value] = n
		*all = append(*all, value)
	}
	return n
}

// record writes a row into a record and its live part.
func (l *list) record(from *row, r *flow.Record, live *flow.Live) {
	k, said := &l.kinds[from.kind], &l.texts[from.texts]
	*r = k.record
	src, dst := netip.AddrFrom16(from.src), netip.AddrFrom16(from.dst)
	if k.is4 {
		src, dst = src.Unmap(), dst.Unmap()
	}
	r.Src, r.Dst, r.SrcPort, r.DstPort = src, dst, from.srcPort, from.dstPort
	r.CategoryConfidence, r.AppConfidence = from.confidence[flow.Category], from.confidence[flow.App]
	r.Packets, r.Bytes, r.FirstSeen, r.LastSeen = from.packets, from.bytes, nanos.Unpack(from.first), nanos.Unpack(from.last)
	r.Name, r.NameSource, r.ALPN, r.JA4 = said.name, said.source, said.alpn, said.ja4
	if k.isLive {
		*live = k.live
		r.Live = live
		r.PacketsIn, r.BytesIn, r.PacketsOut, r.BytesOut = from.packetsIn, from.bytesIn, from.packetsOut, from.bytesOut
		r.Dropped, r.DroppedBytes, r.Generation = from.dropped, from.droppedBytes, from.generation
		r.Rate, r.DroppedRate = from.rate, from.dropRate
	}
}

// keep chooses the rows that a filter accepts.
func (l *list) keep(filter Filter) {
	var r flow.Record
	var live flow.Live
	l.ordered, l.totalRate = make([]uint32, 0, l.n), 0
	for i := range uint32(l.n) {
		from := l.at(i)
		if l.record(from, &r, &live); filter(&r) {
			l.ordered = append(l.ordered, i)
			l.totalRate += from.rate
		}
	}
}

// sort orders the rows that are kept by one of SortKeys. Equal rows are in an order that
// keeps each line in its place from one read to the next.
func (l *list) sort(key string) {
	order := orders[key]
	slices.SortStableFunc(l.ordered, func(a, b uint32) int {
		x, y := sortable{l, l.at(a)}, sortable{l, l.at(b)}
		if o := order(x, y); o != 0 {
			return o
		}
		for _, order := range tieBreakers {
			if o := order(x, y); o != 0 {
				return o
			}
		}
		return 0
	})
}

// rows returns the first rows that are kept, in order; n < 0: all. The record of a row is
// valid until the next one.
func (l *list) rows(n int) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		var r flow.Record
		var live flow.Live
		shown := l.ordered
		if n >= 0 {
			shown = shown[:min(n, len(shown))]
		}
		for _, i := range shown {
			from := l.at(i)
			l.record(from, &r, &live)
			if !yield(Row{&r, from.rate, from.dropRate}) {
				return
			}
		}
	}
}
