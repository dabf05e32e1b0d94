// SPDX-License-Identifier: Apache-2.0

// Command demo shows dpclass at its main job: real servers and clients in
// network namespaces, with the real bin/dpclass on the router between them. It
// prints the commands that it runs and what they say. Everything it makes goes
// away when it ends, also by Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dpclass/dpclass/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	var left cleanupError
	switch {
	case err != nil && ctx.Err() != nil && !errors.As(err, &left):
		fmt.Fprintln(os.Stderr, "\ninterrupted: all cleaned up")
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	binary, err := findBinary()
	if err != nil {
		return err
	}
	if err := removeStale(ctx, binary); err != nil {
		return err
	}
	l, err := lab.New("demo")
	if err != nil {
		return err
	}
	s := &show{lab: l, binary: binary, out: newScreen(os.Stdout)}
	defer func() {
		if closeErr := s.close(); closeErr != nil {
			err = errors.Join(err, cleanupError{closeErr})
		}
		if err == nil {
			s.out.say("Done in %.0f s. Namespaces, wires, programs, pins and files are gone.", time.Since(began).Seconds())
		}
	}()
	for _, step := range []func(context.Context) error{
		s.network, s.servers, s.attach, s.traffic, s.watch, s.status, s.measureBefore, s.policy, s.measureAfter, s.bpftool, s.detach,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cleanupError says that something may be left behind.
type cleanupError struct{ error }

func (e cleanupError) Error() string { return "cleaning up: " + e.error.Error() }
func (e cleanupError) Unwrap() error { return e.error }

// findBinary finds bin/dpclass beside this program.
func findBinary() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(filepath.Dir(self), "dpclass")
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("%w\nbuild it, with this program beside it: make demo", err)
	}
	return binary, nil
}

// removeStale detaches what a killed demo left attached; its namespaces go with
// the next lab.
func removeStale(ctx context.Context, binary string) error {
	names, err := lab.Stale()
	if err != nil {
		return err
	}
	for _, name := range names {
		// A namespace without an attached interface is no failure.
		if out, err := command(ctx, binary, "--netns", name, "detach", iface); err != nil {
			fmt.Fprintf(os.Stderr, "demo: detaching in the left-over namespace %q: %s\n", name, out)
		}
	}
	return nil
}
