// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"net/netip"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// life names one life of a flow on one interface.
type life struct {
	iface      string
	src, dst   netip.AddrPort
	proto      string
	vlan       uint32
	generation uint32
}

func lifeOf(r *flow.Record) life {
	return life{
		r.Iface, netip.AddrPortFrom(r.Src, r.SrcPort), netip.AddrPortFrom(r.Dst, r.DstPort), r.Proto, r.VLAN,
		live(r).Generation,
	}
}

// Rates computes rates from two reads.
type Rates struct {
	at    time.Time
	bytes map[life]uint64
}

// Rows returns records as rows with their rates since the last call. The first call
// has no rates.
func (l *Rates) Rows(records []flow.Record, now time.Time) []Row {
	seconds := now.Sub(l.at).Seconds()
	bytes := make(map[life]uint64, len(records))
	rows := make([]Row, len(records))
	for i := range records {
		r := &records[i]
		key := lifeOf(r)
		bytes[key] = r.Bytes
		rows[i].Record = r
		if l.bytes == nil || seconds <= 0 {
			continue
		}
		before, known := l.bytes[key]
		if known || r.FirstSeen.After(l.at) { // all bytes of a new flow are from this interval
			rows[i].Rate = max(float64(r.Bytes)-float64(before), 0) * 8 / seconds
		}
	}
	l.at, l.bytes = now, bytes
	return rows
}
