// SPDX-License-Identifier: Apache-2.0

// Package demo shows dpclass at work: real servers and clients in network namespaces,
// with the real dpclass on the router between them. It prints the commands that it runs
// and their output, and removes everything that it made.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dpclass/dpclass/lab"
)

// ErrCleanup is wrapped by the error of a demo that may have left something behind.
var ErrCleanup = errors.New("clean up")

// Run shows the demo with a dpclass binary.
func Run(ctx context.Context, binary string, out, errOut io.Writer) (err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := removeStale(ctx, binary, errOut); err != nil {
		return err
	}
	l, err := lab.New("demo")
	if err != nil {
		return err
	}
	s := &show{lab: l, binary: binary, out: newScreen(out), errOut: errOut}
	defer func() {
		if closeErr := s.close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", ErrCleanup, closeErr))
		}
		if err == nil {
			s.out.say("Done in %.0f s. Namespaces, devices, programs, pins and files are removed.", time.Since(began).Seconds())
		}
	}()
	for _, step := range []func(context.Context) error{
		s.network, s.servers, s.attach, s.traffic, s.watch, s.score, s.explain, s.categories, s.status,
		s.measureBefore, s.policy, s.measureAfter, s.bpftool, s.detach,
	} {
		if err := step(ctx); err != nil {
			return errors.Join(s.tooFew, err)
		}
	}
	return s.tooFew
}

// removeStale detaches what a killed demo left attached. The next lab removes its
// namespaces.
func removeStale(ctx context.Context, binary string, errOut io.Writer) error {
	names, err := lab.Stale()
	if err != nil {
		return err
	}
	for _, name := range names {
		// A namespace without an attached interface is not a failure.
		if out, err := command(ctx, binary, "--netns", name, "detach", iface); err != nil {
			fmt.Fprintf(errOut, "detach in the left-over namespace %q: %s\n", name, out)
		}
	}
	return nil
}
