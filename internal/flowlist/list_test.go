// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

// fill gives every field of a struct a value of its own.
func fill(t *testing.T, v reflect.Value, next *int) {
	t.Helper()
	for i := range v.NumField() {
		*next++
		field := v.Field(i)
		switch value := field.Addr().Interface().(type) {
		case *netip.Addr:
			*value = netip.AddrFrom4([4]byte{10, 0, 0, byte(*next)})
		case *time.Time:
			*value = time.Unix(int64(*next), 5).UTC()
		case **flow.Live:
			*value = &flow.Live{}
			fill(t, reflect.ValueOf(*value).Elem(), next)
		default:
			switch field.Kind() { //nolint:exhaustive // a field of another kind fails the test
			case reflect.String:
				field.SetString(fmt.Sprint("text ", *next))
			case reflect.Bool:
				field.SetBool(true)
			case reflect.Float64:
				field.SetFloat(float64(*next))
			case reflect.Int, reflect.Int32, reflect.Int64:
				field.SetInt(int64(*next))
			case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
				field.SetUint(uint64(*next))
			default:
				t.Fatalf("field %s is a %v", v.Type().Field(i).Name, field.Kind())
			}
		}
	}
}

// A list keeps every field of a record, also one that is new.
func TestListKeepsRecords(t *testing.T) {
	var full flow.Record
	next := 0
	fill(t, reflect.ValueOf(&full).Elem(), &next)
	six, offline := full, full
	six.Src, six.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	offline.Live, offline.FirstSeen, offline.LastSeen = nil, time.Time{}, time.Time{}
	want := []flow.Record{full, six, offline, *call443(), *undecided6()}
	l := newList(maphash.MakeSeed())
	for i := range want {
		l.add(&want[i])
	}
	l.keep(func(*flow.Record) bool { return true })
	n := 0
	for got := range l.rows(-1) {
		if !reflect.DeepEqual(*got.Record, want[n]) {
			t.Errorf("record %d:\n%+v %+v, want\n%+v %+v", n, *got.Record, got.Live, want[n], want[n].Live)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d records, want %d", n, len(want))
	}
}

// A flow that comes twice while it is decided is one row with all of its counts.
func TestListJoinsParts(t *testing.T) {
	decided, pending := *call443(), *call443()
	decided.Live = &flow.Live{PacketsIn: 1, BytesIn: 100, PacketsOut: 2, BytesOut: 200, Dropped: 3, Generation: 7}
	pending.Live = &flow.Live{PacketsIn: 10, BytesIn: 1000, PacketsOut: 20, BytesOut: 2000, Dropped: 30, Generation: 7}
	decided.Packets, decided.Bytes, pending.Packets, pending.Bytes = 3, 300, 30, 3000
	pending.Category = "chat"
	next := pending
	next.Live = &flow.Live{Generation: 8}
	l := newList(maphash.MakeSeed())
	for _, r := range []*flow.Record{&decided, &pending, &next} {
		l.add(r)
	}
	l.keep(func(*flow.Record) bool { return true })
	for r := range l.rows(1) {
		want := flow.Live{PacketsIn: 11, BytesIn: 1100, PacketsOut: 22, BytesOut: 2200, Dropped: 33, Generation: 7}
		if l.n != 2 || *r.Live != want || r.Packets != 33 || r.Bytes != 3300 || r.Category != decided.Category {
			t.Errorf("%d rows: %+v %+v", l.n, r.Record, r.Live)
		}
	}
}
