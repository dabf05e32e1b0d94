// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// bpffs is where pins live.
const bpffs = "/sys/fs/bpf"

// isolatedVariable says that the process has a mount namespace of its own.
const isolatedVariable = "DPCLASS_TEST_ISOLATED"

// mainVariable makes the test binary behave as dpclass.
const mainVariable = "DPCLASS_TEST_MAIN"

// TestMain gives the tests a mount namespace with a BPF file system of its own,
// where they may: "nothing is left" and "detach --all" are then about what the
// tests did, whatever else runs on the machine.
func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
	}
	if file := os.Getenv(unitVariable); file != "" {
		fmt.Fprintln(os.Stderr, runUnit(file))
		os.Exit(1)
	}
	if os.Geteuid() == 0 && os.Getenv(isolatedVariable) == "" {
		if err := isolate(); err != nil {
			fmt.Fprintf(os.Stderr, "no mount namespace for the end-to-end tests: %v\n", err)
		}
	}
	os.Exit(m.Run())
}

// isolate starts this process again in a mount namespace. It returns only where
// that fails.
func isolate() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // exec keeps the namespaces of the thread that calls it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, "mode=700"); err != nil {
		return fmt.Errorf("mount %q: %w", bpffs, err)
	}
	return errors.Join(errors.New("exec"), unix.Exec(self, os.Args, append(os.Environ(), isolatedVariable+"=yes")))
}
