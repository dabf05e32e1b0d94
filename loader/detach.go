// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/netns"
)

// How long to wait for a live agent to end by itself, and then for the kernel to end it.
const (
	detachWait = 10 * time.Second
	killWait   = 5 * time.Second
	detachPoll = 20 * time.Millisecond
)

// Detached says what Detach did about an interface.
type Detached struct {
	Iface    string // its name now; of one that is gone, the last known
	Attached bool   // false: there was nothing to detach
	Agent    int    // process id of the agent that was ended, 0 if there was none
	Resumed  bool   // the agent had been stopped, and was continued to end
	Killed   bool   // the agent did not end by itself
}

// Detach detaches dpclass from an interface of the calling thread's network namespace
// and ends its agent: it asks the agent to, and kills it if it does not within 10
// seconds. If dpclass is not attached to the interface, Detach does nothing. It is an
// error if there is neither an interface nor pins of that name.
func Detach(ctx context.Context, iface string) (Detached, error) {
	return defaultRoot().detach(ctx, iface)
}

// DetachAll detaches dpclass from every interface in every network namespace. It
// continues after an error.
func DetachAll(ctx context.Context) ([]Detached, error) { return defaultRoot().detachAll(ctx) }

func (r root) detach(ctx context.Context, iface string) (Detached, error) {
	found, err := r.find(iface)
	missing := errors.Is(err, ErrNotAttached)
	if err != nil && !missing {
		return Detached{Iface: iface}, err
	}
	done := Detached{Iface: iface}
	if !missing {
		if done, err = r.detachPlace(ctx, &found); err != nil {
			return done, err
		}
		done.Iface = iface
	}
	// Pins of an earlier interface of this name may be left.
	gone, err := r.deserted(iface)
	if err != nil {
		return done, err
	}
	for n := range gone {
		also, err := r.detachPlace(ctx, &gone[n])
		done.Attached = done.Attached || also.Attached
		if also.Agent != 0 {
			done.Agent, done.Resumed, done.Killed = also.Agent, also.Resumed, also.Killed
		}
		if err != nil {
			return done, err
		}
	}
	if done.Attached {
		return done, nil
	}
	device, err := linkByName(iface)
	if err != nil {
		return done, err
	}
	if device == nil {
		return done, r.noPins(iface)
	}
	return done, nil
}

// deserted returns the pins of interfaces that had this name and are gone.
func (r root) deserted(iface string) ([]place, error) {
	here, err := r.here()
	if err != nil {
		return nil, err
	}
	var gone []place
	for _, p := range here {
		if p.name != iface || p.err != nil {
			continue
		}
		now, err := linkByIndex(int(p.info.Ifindex))
		if err != nil {
			return nil, err
		}
		if now == nil {
			gone = append(gone, p)
		}
	}
	return gone, nil
}

// noPins is the error if neither an interface nor pins have the name.
func (r root) noPins(iface string) error {
	err := noDevice(iface)
	if _, hint := r.find(iface); hint != nil {
		for _, advice := range fault.Advice(hint) { // it has another name now
			err = fault.Advise(err, "%s", advice)
		}
	}
	return err
}

func (r root) detachAll(ctx context.Context) ([]Detached, error) {
	places, err := r.places()
	if err != nil {
		return nil, err
	}
	var all []Detached
	var errs []error
	for n := range places {
		done, err := r.detachPlace(ctx, &places[n])
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", places[n].name, err))
			continue
		}
		all = append(all, done)
	}
	return all, errors.Join(errs...)
}

// detachPlace ends the agent that holds the directory and removes what is left.
func (r root) detachPlace(ctx context.Context, p *place) (Detached, error) {
	done := Detached{Iface: p.name}
	lock, err := lockDir(p.dir)
	if errors.Is(err, ErrBusy) {
		lock, err = r.endAgent(ctx, p.dir, &done)
	}
	if errors.Is(err, fs.ErrNotExist) {
		done.Attached = true // the agent detached
		return done, nil
	}
	if err != nil {
		return done, err
	}
	defer lock.Close()
	if !isDir(lock, p.dir) {
		return done, nil // another process removed it meanwhile
	}
	done.Attached = true
	return done, errors.Join(r.clear(p.dir), r.removeDir(p.dir))
}

// clear detaches and removes everything in a pin directory.
func (r root) clear(dir string) error {
	info, err := readInfo(dir)
	if err == nil && info.Tc != bpfTcKindTcTcx {
		if err := removeClsactOf(&info); err != nil {
			return err
		}
	}
	// Remove the links first: no packet must find a map missing.
	return errors.Join(unlinkAll(dir), unpinAll(dir))
}

// removeClsactOf removes the clsact filters of an interface in any namespace.
func removeClsactOf(info *bpfInterfaceInfo) error {
	ns, err := netns.ByCookie(info.NetnsCookie)
	if err != nil || !ns.IsOpen() { // the namespace is gone, and its filters with it
		return err
	}
	defer ns.Close()
	return netns.In(ns, func() error { return removeClsact(info) })
}

// endAgent ends the agent that holds a pin directory, and notes how. It returns the lock
// of the directory, or an error that wraps fs.ErrNotExist if the agent removed the
// directory.
func (r root) endAgent(ctx context.Context, dir string, done *Detached) (*os.File, error) {
	poll := time.NewTicker(detachPoll)
	defer poll.Stop()
	patience := time.NewTimer(detachWait)
	defer patience.Stop()
	ending := &process{}
	defer func() { ending.close() }()
	for {
		if ending.ended() {
			ending.close()
			ending = processOf(dir)
			if ending.pid != 0 {
				done.Agent = ending.pid
				if err := ending.terminate(); err != nil {
					return nil, err
				}
			}
		}
		if ending.pid != 0 && ending.stopped() {
			done.Resumed = true
			if err := ending.resume(); err != nil {
				return nil, err
			}
		}
		// Wait until it has detached its other interfaces too: they are to be off as well when this returns.
		if ending.ended() || !r.holdsAny(ending.pid) {
			if lock, err := lockDir(dir); !errors.Is(err, ErrBusy) {
				return lock, err
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (process %d): %w", ErrBusy, holder(dir), context.Cause(ctx))
		case <-patience.C:
			switch {
			case ending.pid == 0:
				return nil, fault.Advise(fmt.Errorf("%w (process %d), and does not say who it is", ErrBusy, holder(dir)), "end that process")
			case done.Killed:
				return nil, fmt.Errorf("the agent, process %d, does not end even when it is killed", ending.pid)
			}
			done.Killed = true
			if err := ending.kill(); err != nil {
				return nil, err
			}
			patience.Reset(killWait)
		}
	}
}
