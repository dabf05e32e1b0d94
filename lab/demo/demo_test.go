// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// record returns a TCP flow to a port of 10.0.2.2.
func record(port uint16, category string, final bool) flow.Record {
	return flow.Record{Src: netip.MustParseAddr("10.0.1.2"), SrcPort: 40000, Dst: netip.MustParseAddr("10.0.2.2"), DstPort: port, Proto: "tcp",
		Category: category, CategoryFinal: final, Bytes: 100}
}

func TestJudge(t *testing.T) {
	mail := &kind{what: "mail", truth: "email", proto: "tcp", server: netip.MustParseAddrPort("10.0.2.2:25")}
	reversed := record(40000, "email", true) // dpclass saw the server's packet first
	reversed.Src, reversed.SrcPort, reversed.Dst = netip.MustParseAddr("10.0.2.2"), 25, netip.MustParseAddr("10.0.1.2")
	udp := record(25, "chat", true)
	udp.Proto = "udp"
	for name, test := range map[string]struct {
		records        []flow.Record
		decided, right int
		shown          string
		ok             bool
	}{
		"no flow":               {nil, 0, 0, "", false},
		"another port":          {[]flow.Record{record(26, "email", true)}, 0, 0, "", false},
		"another transport":     {[]flow.Record{udp}, 0, 0, "", false},
		"not decided":           {[]flow.Record{record(25, "email", false)}, 0, 0, "", false},
		"right":                 {[]flow.Record{record(25, "email", true), record(25, "", false)}, 1, 1, "email", true},
		"the server came first": {[]flow.Record{reversed}, 1, 1, "email", true},
		"one of two wrong":      {[]flow.Record{record(25, "email", true), record(25, "chat", true)}, 2, 1, "chat", false},
		"unknown":               {[]flow.Record{record(25, flow.Unknown, true)}, 1, 0, flow.Unknown, false},
	} {
		got := judge([]*kind{mail}, test.records)[0]
		if got.decided != test.decided || got.right != test.right || got.shown.Category != test.shown || got.ok() != test.ok {
			t.Errorf("%s: %d of %d right, shown %q, ok %v", name, got.right, got.decided, got.shown.Category, got.ok())
		}
	}
}

func TestEnough(t *testing.T) {
	for _, test := range []struct {
		right, ran int
		want       bool
	}{{10, 10, true}, {9, 10, true}, {8, 10, false}, {9, 9, true}, {8, 9, false}, {0, 0, false}} {
		if got := enough(test.right, test.ran); got != test.want {
			t.Errorf("%d of %d: %v", test.right, test.ran, got)
		}
	}
}

func TestTotals(t *testing.T) {
	got := totals([]flow.Record{record(1, "web", true), record(2, "", false), record(3, "web", true), record(4, "chat", true)})
	want := []total{{"web", 2, 200}, {"(undecided)", 1, 100}, {"chat", 1, 100}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
