// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopTime is how long a process has to end after SIGTERM, before SIGKILL.
const stopTime = 5 * time.Second

// Process is a program that runs in a host's namespace, in a process group of
// its own.
type Process struct {
	cmd    *exec.Cmd
	name   string
	output *buffer
	done   chan struct{}
	err    error // once done is closed
}

// FindProgram returns the path of a program, also of one in sbin, which is not
// in every user's PATH.
func FindProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || strings.Contains(name, "/") {
		return path, err
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %q is not installed: run make deps: %w", name, err)
}

// Command returns a command for StartCommand: to set its Env, Dir, Stdin or
// Stdout. Its context ends it.
func (h *Host) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := FindProgram(name)
	if err != nil {
		return nil, fmt.Errorf("host %q: %w", h.name, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = time.Second // for output that a child of its own still holds open
	return cmd, nil
}

// Start starts a program in the namespace. Close ends it, or Stop, or its
// context.
func (h *Host) Start(ctx context.Context, name string, args ...string) (*Process, error) {
	cmd, err := h.Command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	return h.StartCommand(cmd)
}

// StartCommand starts a command that Command made. Output that it leaves
// without a writer is kept, for Output.
func (h *Host) StartCommand(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, name: cmd.Path, output: &buffer{}, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.output
	}
	started := make(chan error)
	select {
	case h.tasks <- func() { started <- cmd.Start() }:
	case <-h.done:
		return nil, fmt.Errorf("host %q is closed", h.name)
	}
	if err := <-started; err != nil {
		return nil, fmt.Errorf("host %q: starting %q: %w", h.name, cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.mu.Lock()
	h.processes = append(h.processes, p)
	h.mu.Unlock()
	return p, nil
}

// Run runs a program to its end and returns its standard output. The error of a
// failed one has the end of its standard error.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd, err := h.Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := h.StartCommand(cmd)
	if err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("host %q: %s %s: %w: %s", h.name, name, strings.Join(args, " "), err, tail(stderr.String()))
	}
	return stdout.String(), nil
}

// tail is the end of a long output.
func tail(text string) string {
	const size = 2000
	text = strings.TrimSpace(text)
	if len(text) > size {
		text = "..." + text[len(text)-size:]
	}
	return text
}

// Pid is its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for its end. The error is that of exec.Cmd.Wait.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Output is what it has written so far.
func (p *Process) Output() string { return p.output.String() }

// Signal sends a signal to its process group.
func (p *Process) Signal(signal syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return unix.Kill(-p.cmd.Process.Pid, signal)
	}
}

// Stop ends it and its children, by SIGTERM and, if need be, SIGKILL, and
// returns what Wait returns.
func (p *Process) Stop() error { return p.stop(syscall.SIGTERM) }

// Interrupt is Stop with SIGINT first.
func (p *Process) Interrupt() error { return p.stop(syscall.SIGINT) }

func (p *Process) stop(signal syscall.Signal) error {
	if p.Signal(signal) != nil {
		return p.Wait()
	}
	select {
	case <-p.done:
	case <-time.After(stopTime):
	}
	// Children too, which may have outlived it.
	_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	return p.Wait()
}

// WaitOutput waits until the output has the text, and fails where the process
// ends before that.
func (p *Process) WaitOutput(ctx context.Context, text string) error {
	for {
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		if strings.Contains(p.Output(), text) {
			return nil
		}
		if ended {
			return fmt.Errorf("%q ended without printing %q: %s", p.name, text, p.ending())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q has not printed %q: %w: %s", p.name, text, ctx.Err(), tail(p.Output()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ending says how it ended, with the end of its output.
func (p *Process) ending() string {
	if p.err == nil {
		return "exit status 0: " + tail(p.Output())
	}
	return p.err.Error() + ": " + tail(p.Output())
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

var _ io.Writer = (*buffer)(nil)

func (b *buffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(data)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
