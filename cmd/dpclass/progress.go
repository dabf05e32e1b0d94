// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells on standard error how far a long job is: from two seconds on,
// in place on a terminal, and as sparse lines elsewhere.
type progress struct {
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
	progressPlain = 15 * time.Second // between the lines of what is no terminal
	progressLive  = 200 * time.Millisecond
)

func newProgress(out io.Writer, what string, total int) *progress {
	now := time.Now()
	_, _, terminal := terminalSize(out)
	return &progress{out: out, terminal: terminal, what: what, total: total, began: now, next: now.Add(progressAfter)}
}

// step tells that n of the total are done; detail is added to the line.
func (p *progress) step(n int, detail string) {
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
	line = fmt.Sprintf("%s %s, %s, %.0f s", line, p.what, detail, now.Sub(p.began).Seconds())
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.shown, p.next = true, now.Add(progressLive)
		return
	}
	fmt.Fprintln(p.out, line)
	p.next = now.Add(progressPlain)
}

// note prints a line between the progress.
func (p *progress) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// done ends the progress.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

func (p *progress) wipe() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
