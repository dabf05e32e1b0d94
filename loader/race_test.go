// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// TestSamplesNeverUnderflow: packets that cannot queue their sample give it back while user space takes back samples that
// were shed. A number of samples below 0 would be a spent budget for ever.
func TestSamplesNeverUnderflow(t *testing.T) {
	t.Parallel()
	k := newKernel(t, Config{Samples: 1, RingBytes: uint32(os.Getpagesize())}, ethernet)
	for n := 0; k.counters()["ring_full"] == 0; n++ { // nobody reads
		k.pass(progIn, udp(n).sent(0, 1400))
	}
	c := udp(5000)
	k.pass(progIn, c.sent(0, 1400))
	id, frame := k.id(c.key()), c.sent(0, 1400)
	done := make(chan error, 1)
	go func() {
		var err error
		for n := 0; n < 20 && err == nil; n++ {
			_, _, err = k.collection.Programs[progIn].Benchmark(frame, 50_000, func() {})
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
