// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// clock relates the kernel's times to the wall clock at the moment it was created.
type clock struct {
	wall time.Time
	mono int64 // CLOCK_MONOTONIC, ns
	tick int64 // ns of a jiffy

	dryRun bool // the policy's rules only count
}

// clock returns the clock for the flows of the table.
func (t *Table) clock() (clock, error) {
	now, err := newClock(t.tick)
	if err != nil {
		return now, err
	}
	var state bpfPolicyState
	err = t.maps.Policy.Lookup(uint32(0), &state)
	now.dryRun = state.Flags&bpfPolicyFlagPolicyDryRun != 0
	return now, err
}

func newClock(tick uint64) (clock, error) {
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return clock{}, fmt.Errorf("read the clock: %w", err)
	}
	return clock{wall: time.Now().Round(0).UTC(), mono: mono.Nano(), tick: int64(tick)}, nil
}

// tickLength returns the length of a jiffy in ns: the resolution of the coarse
// clocks (TICK_NSEC in the kernel).
func tickLength() (uint64, error) {
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		return 0, fmt.Errorf("length of a tick: %w", err)
	}
	return uint64(max(res.Nano(), 1)), nil
}

func (c clock) time(mono int64) time.Time { return c.wall.Add(time.Duration(mono - c.mono)) }

// lastSeen returns the CLOCK_MONOTONIC of a flow's last packet, accurate to a jiffy. It
// is exact if all packets of the flow fell into one jiffy.
func (c clock) lastSeen(f *bpfFlow) int64 {
	return int64(f.FirstNs) + int64(f.LastJiffies-f.FirstJiffies)*c.tick
}

// jiffies returns the jiffies now, on the scale of the flow.
func (c clock) jiffies(f *bpfFlow) uint64 {
	return f.FirstJiffies + uint64((c.mono-int64(f.FirstNs))/max(c.tick, 1))
}
