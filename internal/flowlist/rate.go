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
	bytes map[uint64]counted // by life; nil: nothing was read
}

// counted is the bytes of a flow: all of them, and those that the policy dropped.
type counted struct{ all, dropped uint64 }

func newRates() rates { return rates{seed: maphash.MakeSeed()} }

// note notes the bytes of flows, for the rates of the next read.
func (l *rates) note(flows iter.Seq[*flow.Record], now time.Time) (n int) {
	bytes := map[uint64]counted{}
	for r := range flows {
		name := life(l.seed, r)
		before := bytes[name]
		bytes[name] = counted{before.all + r.Bytes, before.dropped + live(r).DroppedBytes}
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
	bytes := map[uint64]counted{}
	for name, place := range all.places {
		r := all.at(place)
		now := counted{r.bytes, r.droppedBytes}
		bytes[name] = now
		if !known {
			continue
		}
		before, seen := l.bytes[name]
		if seen || r.first > l.at.UnixNano() { // all bytes of a new flow are from this interval
			// As floats: the kernel changes both while they are read, so dropped may be ahead.
			passed := float64(now.all) - float64(now.dropped) - (float64(before.all) - float64(before.dropped))
			r.rate = max(passed, 0) * 8 / seconds
			r.dropRate = max(float64(now.dropped)-float64(before.dropped), 0) * 8 / seconds
		}
	}
	l.at, l.bytes, all.places = now, bytes, nil
	return all
}
