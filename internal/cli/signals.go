// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// patience is the time after the first signal in which another one does not end the
// process: timeout(1), for one, sends two at a time.
const patience = time.Second

// ends returns the signals that end a verb. The end of the terminal is one.
func ends() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if hasTerminal() && !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// untilSignal returns a context that the first SIGINT or SIGTERM ends, so that a verb
// cleans up; so does SIGHUP if the process has a terminal and nohup(1) does not ignore it.
// A second signal ends the process at once, unless it comes within a second.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), ends()...)
	context.AfterFunc(ctx, func() { time.AfterFunc(patience, stop) })
	return ctx, stop
}

// HoldSignals keeps further signals from ending the process until release is called, for
// what must not be cut short. The first signal still ends the verb's context.
func HoldSignals() (release func()) {
	held := make(chan os.Signal, 1) // nobody reads it
	signal.Notify(held, ends()...)
	return func() { signal.Stop(held) }
}

// Reloads returns a channel that gets a value for each SIGUSR1, the signal of "dpclass
// reload", until the context ends. A service, which is a process without a terminal, gets
// one for each SIGHUP too. Several signals in quick succession may give one value. These
// signals do not end the process any more, not even after the context.
func Reloads(ctx context.Context) <-chan struct{} {
	signals := []os.Signal{syscall.SIGUSR1}
	if !hasTerminal() && !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	received, asked := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(received, signals...)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-received:
			}
			select {
			case asked <- struct{}{}:
			default: // asked already
			}
		}
	}()
	return asked
}

// hasTerminal reports whether the process has a controlling terminal. The variables of
// systemd do not tell a service from a shell: programs that a user starts in a desktop's
// terminal inherit them.
func hasTerminal() bool {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return false
	}
	// After the name in parentheses: state, ppid, pgrp, session, tty_nr (proc(5)).
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(fields) > 4 && string(fields[4]) != "0"
}
