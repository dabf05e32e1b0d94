// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/dpclass/dpclass/flow"
)

// Row is a flow in a list.
type Row struct {
	*flow.Record
	Rate     float64 // bits per second that pass
	DropRate float64 // bits per second that the policy drops
}

// sortable is a row that is compared with another one.
type sortable struct {
	l *list
	*row
}

// common is what the flow has in common with others.
func (s sortable) common() *kind { return &s.l.kinds[s.kind] }

// orders are the orders of a list, each in the direction that people expect.
var orders = map[string]func(a, b sortable) int{
	"rate":     func(a, b sortable) int { return cmp.Compare(b.rate, a.rate) },
	"bytes":    byBytes,
	"packets":  func(a, b sortable) int { return cmp.Compare(b.packets, a.packets) },
	"dropped":  func(a, b sortable) int { return cmp.Compare(b.dropped, a.dropped) },
	"last":     func(a, b sortable) int { return cmp.Compare(b.last, a.last) },
	"first":    func(a, b sortable) int { return cmp.Compare(b.first, a.first) },
	"category": func(a, b sortable) int { return labelOrder(a.common().record.Category, b.common().record.Category) },
	"app":      func(a, b sortable) int { return labelOrder(a.common().record.App, b.common().record.App) },
	"src":      bySource,
	"dst":      byDestination,
}

// tieBreakers order flows that are equal otherwise.
var tieBreakers = []func(a, b sortable) int{
	byBytes,
	func(a, b sortable) int { return cmp.Compare(a.common().record.Iface, b.common().record.Iface) },
	bySource,
	byDestination,
	func(a, b sortable) int { return cmp.Compare(a.common().record.Proto, b.common().record.Proto) },
	func(a, b sortable) int { return cmp.Compare(a.first, b.first) },
}

func byBytes(a, b sortable) int { return cmp.Compare(b.bytes, a.bytes) }

func bySource(a, b sortable) int {
	return byEnd(a.common().is4, b.common().is4, &a.src, &b.src, a.srcPort, b.srcPort)
}

func byDestination(a, b sortable) int {
	return byEnd(a.common().is4, b.common().is4, &a.dst, &b.dst, a.dstPort, b.dstPort)
}

// byEnd orders endpoints as netip does: IPv4 first.
func byEnd(a4, b4 bool, a, b *[16]byte, aPort, bPort uint16) int {
	if a4 != b4 {
		if a4 {
			return -1
		}
		return 1
	}
	if o := bytes.Compare(a[:], b[:]); o != 0 {
		return o
	}
	return cmp.Compare(aPort, bPort)
}

// labelOrder puts undecided flows last.
func labelOrder(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// SortKeys returns the names of the orders, sorted.
func SortKeys() []string {
	keys := []string{}
	for key := range orders {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
