// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"cmp"
	"slices"

	"github.com/dpclass/dpclass/flow"
)

// Row is a flow in a list.
type Row struct {
	*flow.Record
	Rate float64 // bits per second
}

// orders are the orders of a list, each in the direction that people expect.
var orders = map[string]func(a, b Row) int{
	"rate":     func(a, b Row) int { return cmp.Compare(b.Rate, a.Rate) },
	"bytes":    func(a, b Row) int { return cmp.Compare(b.Bytes, a.Bytes) },
	"packets":  func(a, b Row) int { return cmp.Compare(b.Packets, a.Packets) },
	"dropped":  func(a, b Row) int { return cmp.Compare(live(b.Record).Dropped, live(a.Record).Dropped) },
	"last":     func(a, b Row) int { return b.LastSeen.Compare(a.LastSeen) },
	"first":    func(a, b Row) int { return b.FirstSeen.Compare(a.FirstSeen) },
	"category": func(a, b Row) int { return labelOrder(a.Category, b.Category) },
	"app":      func(a, b Row) int { return labelOrder(a.App, b.App) },
	"src":      func(a, b Row) int { return cmp.Or(a.Src.Compare(b.Src), cmp.Compare(a.SrcPort, b.SrcPort)) },
	"dst":      func(a, b Row) int { return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.DstPort, b.DstPort)) },
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

// Sort sorts rows by one of SortKeys. Equal rows are in an order that keeps each line in
// its place from one read to the next.
func Sort(rows []Row, key string) {
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(
			orders[key](a, b), orders["bytes"](a, b), cmp.Compare(a.Iface, b.Iface),
			orders["src"](a, b), orders["dst"](a, b), cmp.Compare(a.Proto, b.Proto), a.FirstSeen.Compare(b.FirstSeen),
		)
	})
}
