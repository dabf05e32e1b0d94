// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/flow"
)

// cost is the CPU time that a packet takes.
type cost struct {
	network time.Duration // the batch copied into the input and run through the network
	live    time.Duration // all of it: vector made, queued, taken out, run, combined with its flow
}

// rounds is how often each part is measured. The median counts.
const rounds = 5

// measure runs packets, from the IP header on, through one model in batches. It takes
// roughly the given time, and less where the context ends: that is an error.
func measure(ctx context.Context, library string, m *model.Model, packets [][]byte, batch int, about time.Duration) (result cost, err error) {
	chunk := max(1, 512/batch) * batch // whole batches only, and many of them
	c, err := classifier.New(classifier.Options{
		Library: library, Models: []*model.Model{m}, Evidence: classifier.EvidenceModel, Workers: 1, Batch: batch, Delay: time.Hour, Queue: chunk,
	})
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if result.live, err = measureLive(ctx, c, packets, chunk, about/2/rounds); err != nil {
		return cost{}, err
	}
	result.network, err = measureNetwork(ctx, c, packets, batch, about/2/rounds)
	return result, err
}

// measureNetwork classifies one batch at a time on this thread.
func measureNetwork(ctx context.Context, c *classifier.Classifier, packets [][]byte, batch int, round time.Duration) (time.Duration, error) {
	// Each batch has other vectors: a network that looks bytes up in tables is a third
	// faster on vectors that it has just seen. The first ones are there again at the end,
	// so that a batch may begin anywhere.
	vectors := make([][]byte, 0, len(packets)+batch)
	for i := range len(packets) + batch {
		vectors = append(vectors, classifier.Vector(packets[i%len(packets)]))
	}
	next := 0
	classify := func() (int, error) {
		const batches = 8 // reading the clock is a system call: not after every batch
		for range batches {
			if _, err := c.Probabilities(vectors[next : next+batch]); err != nil {
				return 0, err
			}
			next = (next + batch) % len(packets)
		}
		return batches * batch, nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := classify(); err != nil { // the first run allocates
		return 0, err
	}
	return medianCPU(ctx, unix.CLOCK_THREAD_CPUTIME_ID, round, classify)
}

// measureLive submits a chunk of samples, each of another flow so that every one counts,
// and then has them classified: one after the other, so that the two do not compete for
// a core.
func measureLive(ctx context.Context, c *classifier.Classifier, packets [][]byte, chunk int, round time.Duration) (time.Duration, error) {
	samples := make([]flow.Sample, len(packets))
	for i, packet := range packets {
		// Flows of both ends and many sources, so that none has more than its share of the queue.
		key, _ := flow.MakeKey(flow.UDP, netip.MustParseAddrPort("192.0.2.1:53000"),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(i)), 0)
		samples[i] = flow.Sample{ID: flow.ID{Key: key}, Packet: packet, TwoWay: true, FromA: key.A.Addr() != netip.MustParseAddr("192.0.2.1")}
	}
	next := 0
	classify := func() (int, error) {
		for range chunk {
			sample := &samples[next%len(samples)]
			sample.ID.Generation = uint32(next / len(samples))
			if !c.Submit(sample) {
				return 0, errors.New("the queue is full")
			}
			next++
		}
		running, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		decided := 0
		err := c.Run(running, func(decisions []flow.Decision) {
			if decided += len(decisions); decided == chunk {
				stop()
			}
		})
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && decided != chunk {
			err = fmt.Errorf("%d decisions on %d flows in a minute: %s", decided, chunk, c.Stats().LastError)
		}
		return chunk, err
	}
	if _, err := classify(); err != nil { // the first run allocates
		return 0, err
	}
	return medianCPU(ctx, unix.CLOCK_PROCESS_CPUTIME_ID, round, classify)
}

// medianCPU calls fn over and over for each of the rounds and returns the median CPU
// time of a packet by the clock. fn returns how many packets it handled.
func medianCPU(ctx context.Context, clock int32, round time.Duration, fn func() (int, error)) (time.Duration, error) {
	results := make([]time.Duration, 0, rounds)
	for range rounds {
		begin, err := cpuTime(clock)
		if err != nil {
			return 0, err
		}
		used, n := time.Duration(0), 0
		for used < round {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			packets, err := fn()
			if err != nil {
				return 0, err
			}
			n += packets
			now, err := cpuTime(clock)
			if err != nil {
				return 0, err
			}
			used = now - begin
		}
		results = append(results, used/time.Duration(n))
	}
	slices.Sort(results)
	return results[rounds/2], nil
}

// cpuTime reads a clock of CPU time: what other programs do is not in it.
func cpuTime(clock int32) (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(clock, &now); err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
