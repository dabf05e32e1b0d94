// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// screen prints the demo's own words, with colour on a terminal.
type screen struct {
	file  *os.File
	color bool
}

func newScreen(file *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return &screen{file: file, color: err == nil && os.Getenv("NO_COLOR") == ""}
}

func (s *screen) paint(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// step begins a part of the demo.
func (s *screen) step(format string, args ...any) {
	fmt.Fprintf(s.file, "\n%s\n", s.paint("1;36", "==> "+fmt.Sprintf(format, args...)))
}

func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(s.file, format+"\n", args...)
}

// command shows a command as a person would type it on the router.
func (s *screen) command(args ...string) {
	for i, arg := range args {
		if arg == "" || strings.ContainsAny(arg, " []<>|&;*?$\"") {
			args[i] = "'" + arg + "'"
		}
	}
	fmt.Fprintln(s.file, s.paint("1;32", "router# ")+s.paint("1", strings.Join(args, " ")))
}

// command runs a program where this one runs.
func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// megabits writes a rate.
func megabits(bits float64) string { return fmt.Sprintf("%.1f Mbit/s", bits/1e6) }
