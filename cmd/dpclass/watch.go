// SPDX-License-Identifier: Apache-2.0

package main

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

// watchKeys are the keys of the live table, with the order they sort by.
var watchKeys = map[byte]string{
	'r': "rate", 'b': "bytes", 'p': "packets", 'd': "dropped", 'l': "last", 'f': "first", 'c': "category", 'a': "app",
}

const watchHelp = "q quit  space pause  sort: r rate  b bytes  p packets  d dropped  l last  f first  c category  a app"

// watch shows the flows again and again: in place on a terminal, else as one
// table after the other.
func (v *flowView) watch(ctx context.Context, in io.Reader, out io.Writer) error {
	if _, _, terminal := terminalSize(out); !terminal {
		return v.watchPlain(ctx, out)
	}
	keys, restore, err := readKeys(ctx, in)
	if err != nil {
		return err
	}
	defer restore()
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return err
	}
	err = v.watchScreen(ctx, keys, out)
	_, leaveErr := io.WriteString(out, leaveScreen)
	return errors.Join(err, leaveErr)
}

func (v *flowView) watchScreen(ctx context.Context, keys <-chan byte, out io.Writer) error {
	ticker := time.NewTicker(v.interval(time.Second))
	defer ticker.Stop()
	rows, total, err := v.read()
	if err != nil {
		return err
	}
	for paused := false; ; {
		if err := v.draw(out, rows, total, paused); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case key := <-keys:
			switch order, isOrder := watchKeys[key]; {
			case key == 'q' || key == 4: // Ctrl-D
				return nil
			case key == ' ':
				paused = !paused
			case isOrder:
				v.sort = order
				sortRows(rows, order)
			}
		case <-ticker.C:
			if paused {
				continue
			}
			if rows, total, err = v.read(); err != nil {
				return err
			}
		}
	}
}

// draw writes one screen, cut to the terminal's size.
func (v *flowView) draw(out io.Writer, rows []row, total int, paused bool) error {
	columns, height, ok := terminalSize(out)
	if !ok {
		columns, height = 80, 24
	}
	shown := v.limited(rows)
	if room := max(height-4, 1); len(shown) > room { // titles, summary, a line between, keys
		shown = shown[:room]
	}
	color := wantColor(out)
	lines := flowTable(shown, time.Now(), color, columns)
	summary := v.summary(rows, len(shown), total) + ", sorted by " + v.sort
	if paused {
		summary += ", paused"
	}
	lines = append(lines, "", paint(cut(summary, columns), bold, color), paint(cut(watchHelp, columns), dim, color))
	_, err := io.WriteString(out, cursorHome+strings.Join(lines, clearLine+"\r\n")+clearLine+clearBelow)
	return err
}

func cut(text string, columns int) string {
	if len(text) > columns {
		return text[:columns]
	}
	return text
}

func (v *flowView) watchPlain(ctx context.Context, out io.Writer) error {
	for {
		rows, total, err := v.read()
		if err != nil {
			return err
		}
		shown := v.limited(rows)
		lines := append([]string{time.Now().Format(time.TimeOnly)}, flowTable(shown, time.Now(), false, 0)...)
		lines = append(lines, v.summary(rows, len(shown), total), "")
		if _, err := fmt.Fprintln(out, strings.Join(lines, "\n")); err != nil {
			return err
		}
		if !pause(ctx, v.interval(time.Second)) {
			return nil
		}
	}
}
