// SPDX-License-Identifier: Apache-2.0

// Package tui draws on terminals: tables with columns and colours, a live table with
// keys, and figures in forms for people.
package tui

import (
	"context"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Size returns the columns and rows of a terminal; ok is false if w is not a
// terminal.
func Size(w io.Writer) (columns, rows int, ok bool) {
	file, isFile := w.(*os.File)
	if !isFile {
		return 0, 0, false
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	if size.Col == 0 || size.Row == 0 { // a serial line does not know its size
		return 80, 24, true
	}
	return int(size.Col), int(size.Row), true
}

// Width returns how wide a table for w may be: as wide as the terminal, or elsewhere
// $COLUMNS (POSIX, XBD 8.3) if that is set; 0 means no limit.
func Width(w io.Writer) int {
	if columns, _, terminal := Size(w); terminal {
		return columns
	}
	columns, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err != nil || columns < 0 {
		return 0
	}
	return columns
}

// WantColor reports whether to write colours to w: only to a terminal, and not if
// NO_COLOR forbids it (https://no-color.org).
func WantColor(w io.Writer) bool {
	_, _, terminal := Size(w)
	return terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// readKeys returns the key presses of a terminal until the context ends, and a
// function that restores the terminal. Without a terminal there are no keys.
func readKeys(ctx context.Context, in io.Reader) (keys <-chan byte, restore func(), err error) {
	file, ok := in.(*os.File)
	if !ok {
		return nil, func() {}, nil
	}
	fd := int(file.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, func() {}, nil // not a terminal
	}
	raw := *before
	raw.Lflag &^= unix.ECHO | unix.ICANON
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 0, 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, func() {}, err
	}
	pressed := make(chan byte)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		var buffer [16]byte
		for ctx.Err() == nil {
			n, err := unix.Read(fd, buffer[:]) // returns after 100 ms at the latest (VTIME)
			if err != nil && err != unix.EINTR {
				return
			}
			if n == 0 {
				// a terminal that hung up gives 0 at once, for ever
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
			for _, key := range buffer[:max(n, 0)] {
				select {
				case pressed <- key:
				case <-ctx.Done():
				}
			}
		}
	}()
	return pressed, func() {
		cancel()
		<-done
		// Nothing can be done about a terminal that went away.
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, before)
	}, nil
}
