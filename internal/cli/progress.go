// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dpclass/dpclass/internal/tui"
)

// Progress shows on standard error how far a long job is. It starts after two seconds.
// On a terminal it rewrites one line, elsewhere it prints a line every 15 seconds. Its
// methods may be called from several goroutines.
type Progress struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	what     string
	total    int // 0: not known
	began    time.Time
	next     time.Time
	shown    bool
}

const (
	progressAfter = 2 * time.Second
	progressPlain = 15 * time.Second // between two lines outside a terminal
	progressLive  = 200 * time.Millisecond
)

// NewProgress returns the progress of a job of total steps, 0 if the number is not
// known; what names the steps in the plural.
func NewProgress(out io.Writer, what string, total int) *Progress {
	now := time.Now()
	_, _, terminal := tui.Size(out)
	return &Progress{out: out, terminal: terminal, what: what, total: total, began: now, next: now.Add(progressAfter)}
}

// Step reports that n of the total are done; detail is added to the line.
func (p *Progress) Step(n int, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	line := fmt.Sprintf("%d", n)
	if p.total > 0 {
		line += fmt.Sprintf(" of %d", p.total)
	}
	line = fmt.Sprintf("%s %s, %s, %.0f s", line, p.what, tui.Printable(detail), now.Sub(p.began).Seconds())
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.shown, p.next = true, now.Add(progressLive)
		return
	}
	fmt.Fprintln(p.out, line)
	p.next = now.Add(progressPlain)
}

// Note prints a line of its own.
func (p *Progress) Note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	fmt.Fprintln(p.out, tui.Printable(fmt.Sprintf(format, args...)))
}

// Wipe removes the progress line from the terminal, so that something else can be
// printed. It comes back with the next step.
func (p *Progress) Wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

func (p *Progress) wipe() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
