// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/dpclass/dpclass/internal/tui"
)

// screen prints the demo's own text, with colour on a terminal.
type screen struct {
	out             io.Writer
	color, terminal bool
}

func newScreen(out io.Writer) *screen {
	_, _, terminal := tui.Size(out)
	return &screen{out, tui.WantColor(out), terminal}
}

func (s *screen) paint(style tui.Style, text string) string { return tui.Paint(text, style, s.color) }

// step begins a part of the demo.
func (s *screen) step(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%s\n", s.paint("1;36", "==> "+fmt.Sprintf(format, args...)))
}

func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}

// command shows a command as a person would type it on the router.
func (s *screen) command(args ...string) {
	words := make([]string, 0, len(args))
	for _, arg := range args {
		words = append(words, quote(arg))
	}
	s.line(strings.Join(words, " "))
}

// quote quotes a word for a shell, if that is necessary.
func quote(word string) string {
	if word == "" || strings.ContainsAny(word, " []<>|&;*?$\"") {
		return "'" + word + "'"
	}
	return word
}

// line shows a command line that is quoted already.
func (s *screen) line(text string) {
	fmt.Fprintln(s.out, s.paint("1;32", "router# ")+s.paint("1", text))
}

// command runs a program in this process's own namespace.
func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// megabits writes a rate.
func megabits(bits float64) string { return fmt.Sprintf("%.1f Mbit/s", bits/1e6) }
