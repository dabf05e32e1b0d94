// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

// horizon is how far ahead the kernel knows when schedules change, if that is not more than
// bpfLimitMaxMoments changes.
const horizon = 400 * 24 * time.Hour

// momentsOf returns when the rules of a policy begin and cease to act, and when days begin if
// it has quotas; nil if it has neither. The first one has come already.
func momentsOf(p *flow.Policy, from time.Time) []bpfMoment {
	zone := p.Zone
	if zone == nil {
		zone = time.Local
	}
	schedules := map[int]*flow.Schedule{}
	quotas := false
	for n := range p.Rules {
		if s := p.Rules[n].Schedule; s != nil {
			schedules[n] = s
		}
		quotas = quotas || p.Rules[n].Action.Quota > 0
	}
	if len(schedules) == 0 && !quotas {
		return nil
	}
	var moments []bpfMoment
	// Clocks change at whole minutes.
	for at := from.Truncate(time.Minute); at.Sub(from) < horizon && len(moments) < int(bpfLimitMaxMoments); at = at.Add(time.Minute) {
		local := at.In(zone)
		now := bpfMoment{At: uint64(at.Unix())}
		for n, s := range schedules {
			if !s.Active(local) {
				now.Inactive |= 1 << n
			}
		}
		if quotas {
			now.Day = uint32(local.Year()*10000 + int(local.Month())*100 + local.Day())
		}
		if last := len(moments) - 1; last < 0 || moments[last].Inactive != now.Inactive || moments[last].Day != now.Day {
			moments = append(moments, now)
		}
	}
	return moments
}

// writeMoments stores the moments of a bank that is not in force.
func (r *Rules) writeMoments(bank uint32, moments []bpfMoment) error {
	active := bpfActive{Moments: uint32(len(moments))}
	for n := range moments {
		if err := r.maps.Moments.Put(bank*uint32(bpfLimitMaxMoments)+uint32(n), &moments[n]); err != nil {
			return fmt.Errorf("store the schedule: %w", err)
		}
	}
	if len(moments) > 0 {
		active.Inactive, active.Day, active.Next = moments[0].Inactive, moments[0].Day, 1
	}
	if err := r.maps.ActiveRules.Put(bank, &active); err != nil {
		return fmt.Errorf("store the schedule: %w", err)
	}
	return r.setWall()
}

// bootTime returns CLOCK_BOOTTIME in ns.
func bootTime() (uint64, error) {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return uint64(boot.Nano()), nil
}

// wallOffset returns CLOCK_REALTIME less CLOCK_BOOTTIME in ns.
func wallOffset() (uint64, error) {
	boot, err := bootTime()
	return uint64(time.Now().UnixNano()) - boot, err
}

// setWall tells the kernel's side what time it is.
func (r *Rules) setWall() error {
	offset, err := wallOffset()
	if err != nil {
		return err
	}
	return r.putWall(offset)
}

func (r *Rules) putWall(offset uint64) error {
	if err := r.maps.Wall.Put(uint32(0), offset); err != nil {
		return fmt.Errorf("set the policy's clock: %w", err)
	}
	return nil
}

// wallStep is by how much the wall clock has to have been set for schedules to look again.
const wallStep = 2 * time.Second

// FollowClock makes schedules and quotas follow the wall clock after it was set. Without it
// they go by what it was when the policy was applied.
func (r *Rules) FollowClock() (err error) {
	state, err := r.state()
	if err != nil {
		return err
	}
	var active bpfActive
	if err := r.maps.ActiveRules.Lookup(state.Epoch&1, &active); err != nil || active.Moments == 0 {
		return err
	}
	var before uint64
	if err := r.maps.Wall.Lookup(uint32(0), &before); err != nil {
		return fmt.Errorf("the policy's clock: %w", err)
	}
	now, err := wallOffset()
	if err != nil {
		return err
	}
	if time.Duration(now-before).Abs() < wallStep {
		return r.putWall(now)
	}
	unlock, err := lockPolicies(r.dir, policyWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return r.withClock(func(clock *policyClock) error {
		if err := r.setWall(); err != nil {
			return err
		}
		err := clock.start(bpfClockKindClockRewind)
		if err != nil { // the next call has to see the step
			err = errors.Join(err, r.putWall(before))
		}
		return err
	})
}

// ScheduleEnds reports whether it is time to renew the policy: the kernel knows less than half of
// the changes ahead that it did when the policy was set, or the wall clock was set back to a time
// before that, of which it knows nothing.
func (r *Rules) ScheduleEnds() (bool, error) {
	state, err := r.state()
	if err != nil {
		return false, err
	}
	var active bpfActive
	bank := state.Epoch & 1
	if err := r.maps.ActiveRules.Lookup(bank, &active); err != nil {
		return false, fmt.Errorf("schedules: %w", err)
	}
	if active.Moments == 0 {
		return false, nil
	}
	var first bpfMoment
	if err := r.maps.Moments.Lookup(bank*uint32(bpfLimitMaxMoments), &first); err != nil {
		return false, fmt.Errorf("schedules: %w", err)
	}
	if uint64(time.Now().Unix()) < first.At {
		return true, nil
	}
	return active.Moments > 1 && 2*active.Next > active.Moments+1, nil
}

// policyClock is the program that starts the kernel's timer of a policy.
type policyClock struct {
	program *ebpf.Program
}

// withClock calls fn with the program.
func (r *Rules) withClock(fn func(*policyClock) error) error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("BPF objects: %w", err)
	}
	for name := range spec.Programs {
		if name != bpfProgDpclassClock {
			delete(spec.Programs, name)
		}
	}
	pinned := map[string]*ebpf.Map{}
	for name, m := range pinnedMaps(r.maps) {
		spec.Maps[name].MaxEntries = (*m).MaxEntries()
		pinned[name] = *m
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		return fault.Advise(fmt.Errorf("load the policy's clock: %w", err), "schedule, quota and --confirm need Linux 5.15 or later")
	}
	defer collection.Close() // the timer keeps the program
	return fn(&policyClock{collection.Programs[bpfProgDpclassClock]})
}

// run runs the program and returns its result.
func (c *policyClock) run(kind bpfClockKind) (int32, error) {
	request := bpfClockRequest{Kind: kind}
	if _, err := c.program.Run(&ebpf.RunOptions{Context: request, ContextOut: &request}); err != nil {
		return 0, fmt.Errorf("run the policy's clock: %w", err)
	}
	return request.Result, nil
}

func (c *policyClock) start(kind bpfClockKind) error {
	result, err := c.run(kind)
	if err == nil && result != 0 {
		err = fmt.Errorf("start the policy's clock: %w", unix.Errno(-result))
	}
	return err
}

// Confirm keeps the policy of Try in force. It returns false if none waits for it.
func (r *Rules) Confirm() (confirmed bool, err error) {
	state, err := r.state()
	if err != nil || state.ConfirmNs == 0 {
		return false, err
	}
	err = r.withClock(func(clock *policyClock) error {
		result, err := clock.run(bpfClockKindClockConfirm)
		confirmed = result != 0
		return err
	})
	return confirmed, err
}

// endWait makes sure that the policy in force does not wait to be confirmed, or returns an
// error that wraps ErrUnconfirmed. If it is forced, it ends the wait.
func (r *Rules) endWait(force bool) error {
	state, err := r.state()
	if err != nil || state.ConfirmNs == 0 {
		return err
	}
	if !force {
		return fault.Advise(ErrUnconfirmed, "confirm it with: dpclass policy confirm, or remove it with: dpclass policy clear")
	}
	if _, err := r.Confirm(); err != nil {
		return err
	}
	return waitForPackets() // the timer may just be taking it back
}
