// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/dpclass/dpclass/flow"
)

// TestSamplesNeverUnderflow: packets that cannot queue their sample give it back while user space takes back samples that
// were shed. A number of samples below 0 would be a spent budget for ever.
func TestSamplesNeverUnderflow(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Ingress: true, Samples: 1, RingBytes: uint32(os.Getpagesize())}, ethernet)
	for n := 0; k.counters()["ring_full"] == 0; n++ { // nobody reads
		if n == 100 {
			t.Fatalf("the ring does not fill up: %v", k.counters())
		}
		k.pass(progIn, udp(n).sent(0, 1400))
	}
	c := udp(5000)
	k.pass(progIn, c.sent(0, 1400))
	id, frame := k.id(c.key()), c.sent(0, 1400)
	done := make(chan error, 1)
	go func() {
		var err error
		for n := 0; n < 20 && err == nil; n++ {
			_, _, err = k.programAt(hook{program: progIn}).Benchmark(frame, 50_000, func() {})
		}
		done <- err
	}()
	for {
		if err := k.table.Resample([]flow.ID{id, id, id, id}); err != nil {
			t.Fatal(err)
		}
		if r := k.flow(c.key()); r.Samples > 1 {
			t.Fatalf("%d samples of a budget of 1", uint32(r.Samples))
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if r := k.flow(c.key()); r.Samples != 0 {
				t.Errorf("%d samples, though none was queued", uint32(r.Samples))
			}
			return
		default:
		}
	}
}

// TestTableAfterClose: whoever stores verdicts while the interface is closed gets an error, not a fault.
func TestTableAfterClose(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{}, ethernet)
	c := udp(1)
	k.pass(progIn, c.sent(0, 100))
	id := k.id(c.key())
	var writers sync.WaitGroup
	var closed atomic.Bool
	begun := make(chan struct{}, 4)
	for range 4 {
		writers.Go(func() {
			for n := 0; ; n++ {
				if n == 10 {
					begun <- struct{}{}
				}
				after := closed.Load()
				err := k.table.Resample([]flow.ID{id})
				if err == nil && !after {
					continue
				}
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("after the end: %v", err)
				}
				return
			}
		})
	}
	for range 4 {
		<-begun
	}
	if err := k.table.inbox.close(); err != nil {
		t.Error(err)
	}
	closed.Store(true)
	writers.Wait()
}

// TestEntriesGoInTwoSweeps: a packet may hold the entry that it has just found while the sweep takes the flow out. An entry
// that another flow could get at once would count that packet in the wrong flow, or end it with the packet's RST.
func TestEntriesGoInTwoSweeps(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Timeouts: Timeouts{Ended: 1}}, ethernet)
	for n, c := range []conn{tcp(1), tcp6(1)} {
		inMap := func() bool {
			entries, err := k.table.read()
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(entries, func(e entry) bool { return e.key == c.key() })
		}
		k.pass(progXDP, c.sent(syn, 0), c.sent(rst, 0))
		first := k.id(c.key())
		ended := len(k.ended())
		k.age(c.key(), 2*settle)
		k.sweep()
		if f, _ := k.entry(c.key()); !flowState(f.State).has(bpfFlowStateStateIdle) {
			t.Fatalf("the sweep left the entry open: state %#x", f.State)
		}
		if r := k.flow(c.key()); r.Ended != "rst" || len(k.ended()) != ended+1 {
			t.Errorf("ended %q, %d records", r.Ended, len(k.ended()))
		}
		if n == 0 { // a packet that comes between the sweeps begins a flow
			k.pass(progXDP, c.sent(ack, 0))
			if r := k.flow(c.key()); r.Generation == first.Generation || r.Packets != 1 {
				t.Errorf("%+v", r.Live)
			}
			continue
		}
		k.sweep()
		if inMap() {
			t.Error("the second sweep left the entry")
		}
	}
	// A flow that is decided: its pending entry goes in the second sweep.
	c := udp(2)
	k.pass(progXDP, c.sent(0, 10))
	k.decide(k.id(c.key()), "chat", 1, true)
	var f bpfFlow
	k.sweep()
	if err := k.maps.Pending.Lookup(narrowKey(c.key()), &f); err != nil {
		t.Errorf("after one sweep: %v", err)
	}
	k.sweep()
	if err := k.maps.Pending.Lookup(narrowKey(c.key()), &f); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("after two sweeps: %v", err)
	}
	if r := k.flow(c.key()); r.Packets != 1 {
		t.Errorf("%d packets", r.Packets)
	}
}

// TestEvicted: flows that a full table loses are counted, and no others.
func TestEvicted(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{MaxPending: 256, Timeouts: Timeouts{Ended: 1}}, ethernet)
	k.pass(progXDP, tcp(1).sent(syn, 0), tcp(2).sent(syn, 0), tcp(2).sent(rst, 0), tcp6(3).sent(syn, 0), tcp6(3).sent(rst, 0), udp(4).sent(0, 10), udp6(5).sent(0, 10))
	k.pass(progXDP, tcp(2).sent(syn, 0)) // retires the one before
	k.decide(k.id(udp(4).key()), "chat", 1, true)
	k.decide(k.id(udp6(5).key()), "chat", 1, true)
	k.age(tcp6(3).key(), 2*settle)
	for n := range 4 {
		if got := k.evicted(); got != 0 {
			t.Errorf("%d evicted after %d sweeps, want 0", got, n)
		}
		k.sweep()
	}
	const flood = 2000
	for n := range flood {
		k.pass(progXDP, udp(100+n).sent(0, 10))
	}
	left := -2 // those of flows 4 and 5
	for _, r := range k.flows() {
		if r.Ended == "" {
			left++
		}
	}
	if got, want := k.evicted(), uint64(flood+2-left); got != want || left >= 300 {
		t.Errorf("%d evicted, want %d: %d of %d flows are left", got, want, left, flood)
	}
}
