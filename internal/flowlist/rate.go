// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"hash/maphash"
	"iter"
	"net/netip"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// lifeName names one life of a flow on one interface.
type lifeName struct {
	iface      string
	src, dst   netip.AddrPort
	proto      string
	vlan       uint32
	generation uint32
}

func lifeOf(r *flow.Record) lifeName {
	return lifeName{
		r.Iface, netip.AddrPortFrom(r.Src, r.SrcPort), netip.AddrPortFrom(r.Dst, r.DstPort), r.Proto, r.VLAN,
		live(r).Generation,
	}
}

// rates computes rates from two reads.
type rates struct {
	seed  maphash.Seed
	at    time.Time
	bytes map[uint64]uint64 // by life; nil: nothing was read
}

func newRates() rates { return rates{seed: maphash.MakeSeed()} }

// note notes the bytes of flows, for the rates of the next read.
func (l *rates) note(flows iter.Seq[*flow.Record], now time.Time) (n int) {
	bytes := map[uint64]uint64{}
	for r := range flows {
		bytes[life(l.seed, r)] += r.Bytes
		n++
	}
	l.at, l.bytes = now, bytes
	return n
}

// list lists flows with their rates since the last read. The first read has no rates.
func (l *rates) list(flows iter.Seq[*flow.Record], now time.Time) *list {
	all := newList(l.seed)
	for r := range flows {
		all.add(r)
	}
	seconds := now.Sub(l.at).Seconds()
	known := l.bytes != nil && seconds > 0
	bytes := map[uint64]uint64{}
	for name, place := range all.places {
		r := all.at(place)
		bytes[name] = r.bytes
		if !known {
			continue
		}
		before, seen := l.bytes[name]
		if seen || r.first > l.at.UnixNano() { // all bytes of a new flow are from this interval
			r.rate = max(float64(r.bytes)-float64(before), 0) * 8 / seconds
		}
	}
	l.at, l.bytes, all.places = now, bytes, nil
	return all
}
