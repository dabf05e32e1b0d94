// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Terminal control (ECMA-48 and xterm's alternate screen).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// Screen is the space that a live view is drawn in.
type Screen struct {
	Columns, Rows int // 0: lines have any length; there may be any number of them
	Color         bool
	Paused        bool
}

// Live is a view that is read and drawn repeatedly.
type Live struct {
	Interval time.Duration
	Read     func() error
	Draw     func(Screen) []string
	Key      func(byte) // gets keys that Live does not handle itself; may be nil
}

// Run shows the view until the context ends: in place on a terminal, where q ends it
// and space pauses it, else one drawing after another.
func (l *Live) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	if _, _, terminal := Size(out); !terminal {
		return l.plain(ctx, out)
	}
	keys, restore, err := readKeys(ctx, in)
	if err != nil {
		return err
	}
	defer restore()
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return err
	}
	err = l.screen(ctx, keys, out)
	_, leaveErr := io.WriteString(out, leaveScreen)
	return errors.Join(err, leaveErr)
}

func (l *Live) screen(ctx context.Context, keys <-chan byte, out io.Writer) error {
	ticker := time.NewTicker(l.Interval)
	defer ticker.Stop()
	if err := l.Read(); err != nil {
		return err
	}
	for paused := false; ; {
		if err := l.draw(out, paused); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-keys:
			switch {
			case key == 'q' || key == 4: // Ctrl-D
				return nil
			case key == ' ':
				paused = !paused
			case l.Key != nil:
				l.Key(key)
			}
		case <-ticker.C:
			if paused {
				continue
			}
			if err := l.Read(); err != nil {
				return err
			}
		}
	}
}

// draw writes one screen.
func (l *Live) draw(out io.Writer, paused bool) error {
	columns, rows, ok := Size(out)
	if !ok {
		columns, rows = 80, 24
	}
	lines := l.Draw(Screen{columns, rows, WantColor(out), paused})
	_, err := io.WriteString(out, cursorHome+strings.Join(lines, clearLine+"\r\n")+clearLine+clearBelow)
	return err
}

func (l *Live) plain(ctx context.Context, out io.Writer) error {
	for {
		if err := l.Read(); err != nil {
			return err
		}
		lines := append([]string{time.Now().Format(time.TimeOnly)}, l.Draw(Screen{Columns: Width(out)})...)
		if _, err := fmt.Fprintln(out, strings.Join(lines, "\n")+"\n"); err != nil {
			return err
		}
		if !Pause(ctx, l.Interval) {
			return nil
		}
	}
}

// Pause waits, and reports whether the whole time passed before the context ended.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Cut cuts a text to a number of columns; 0 means no limit.
func Cut(text string, columns int) string {
	runes := []rune(text)
	if columns > 0 && len(runes) > columns {
		return string(runes[:columns])
	}
	return text
}
