// SPDX-License-Identifier: Apache-2.0

package classifier

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector"
)

// Measurement is what one packet costs a worker, in CPU time of its thread.
type Measurement struct {
	Inference time.Duration // the batch copied into the tensor and run through the network
	Live      time.Duration // all of it: vector made, queued, taken out, run, combined with its flow
}

// rounds is how often each case is measured; the median counts.
const rounds = 5

// Measure runs packets (from the IP header on) through one model in batches on
// one thread, with the sessions, queue and aggregation of a live worker. It
// takes about the given time.
func Measure(library string, m *Model, packets [][]byte, batch int, about time.Duration) (result Measurement, err error) {
	if len(packets) == 0 {
		return Measurement{}, errors.New("no packets to measure with")
	}
	c, err := New(Options{Library: library, Models: []*Model{m}, Workers: 1, Batch: batch, Delay: time.Hour})
	if err != nil {
		return Measurement{}, err
	}
	r := newRunner(c.engine, batch)
	defer func() {
		r.close()
		err = errors.Join(err, c.Close())
	}()
	s := c.shards[0]

	// Each batch holds one sample of as many flows, so that every sample counts.
	samples := make([]flow.Sample, len(packets))
	for i, packet := range packets {
		key, _ := flow.MakeKey(flow.UDP, netip.MustParseAddrPort("192.0.2.1:53000"),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 16)}), uint16(i)), 0)
		samples[i] = flow.Sample{ID: flow.ID{Key: key}, Packet: packet}
	}
	tickets := make([]ticket, 0, batch)
	decisions := make([]flow.Decision, 0, batch)
	next := 0
	// New vectors for every batch: a network that looks bytes up in tables is a
	// third faster on those that it has just seen.
	vectors := make([][vector.Size]byte, len(packets))
	for i, packet := range packets {
		vector.Make(&vectors[i], packet, false)
	}
	inference := func() error {
		for i := range batch {
			*r.vector(i) = vectors[next%len(vectors)]
			next++
		}
		return r.run(batch)
	}
	live := func() error {
		for range batch {
			sample := &samples[next%len(samples)]
			sample.ID.Generation = uint32(next / len(samples))
			if !s.put(sample) {
				return errors.New("the queue is full")
			}
			next++
		}
		s.mu.Lock()
		tickets, _ = s.take(r, tickets)
		s.mu.Unlock()
		if err := r.run(len(tickets)); err != nil {
			return err
		}
		s.mu.Lock()
		decisions = s.decide(r, tickets, decisions)
		s.mu.Unlock()
		if len(decisions) != batch {
			return fmt.Errorf("%d decisions on a batch of %d", len(decisions), batch)
		}
		return nil
	}
	if err := live(); err != nil { // the first run allocates
		return Measurement{}, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, part := range []struct {
		to *time.Duration
		fn func() error
	}{{&result.Live, live}, {&result.Inference, inference}} {
		if *part.to, err = medianCPU(part.fn, batch, about/2/rounds); err != nil {
			return Measurement{}, err
		}
	}
	return result, err
}

// medianCPU calls fn over and over for each of the rounds and returns the
// median CPU time of a packet.
func medianCPU(fn func() error, batch int, round time.Duration) (time.Duration, error) {
	results := make([]time.Duration, 0, rounds)
	for range rounds {
		begin, err := threadTime()
		if err != nil {
			return 0, err
		}
		n := 0
		for used := time.Duration(0); used < round; {
			// The clock is a system call: not after every batch.
			for range 8 {
				if err := fn(); err != nil {
					return 0, err
				}
				n += batch
			}
			now, err := threadTime()
			if err != nil {
				return 0, err
			}
			used = now - begin
		}
		now, err := threadTime()
		if err != nil {
			return 0, err
		}
		results = append(results, (now-begin)/time.Duration(n))
	}
	slices.Sort(results)
	return results[len(results)/2], nil
}

// threadTime is the CPU time of the calling thread: what other programs do on
// the machine is not in it.
func threadTime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0, fmt.Errorf("CPU time of the thread: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
