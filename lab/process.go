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

	"github.com/dpclass/dpclass/internal/fault"
)

// stopTime is the time between SIGTERM and SIGKILL.
const stopTime = 5 * time.Second

// Process is a program that runs in a host's namespace, in its own process group.
type Process struct {
	cmd    *exec.Cmd
	name   string
	output *buffer
	done   chan struct{}
	err    error // valid when done is closed
}

// FindProgram returns the path of a program. It also looks into the sbin directories,
// which are not in every user's PATH.
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
	return "", fault.Advise(fmt.Errorf("program %q is not installed: %w", name, err), "run make deps")
}

// Command returns a command for StartCommand. The caller may set its Env, Dir, Stdin or
// Stdout before. When the context ends, the process gets SIGTERM.
func (h *Host) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := FindProgram(name)
	if err != nil {
		return nil, fmt.Errorf("host %q: %w", h.name, err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = time.Second // a child of its own may hold the output open
	return cmd, nil
}

// Start starts a program in the namespace. It runs until it ends by itself, the context
// ends, or Stop or Lab.Close is called.
func (h *Host) Start(ctx context.Context, name string, args ...string) (*Process, error) {
	cmd, err := h.Command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	return h.StartCommand(cmd)
}

// StartCommand starts a command that Command returned. Stdout and Stderr that the
// caller did not set are kept for [Process.Output].
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
		return nil, fmt.Errorf("host %q: start %q: %w", h.name, cmd.Path, err)
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

// Run runs a program, waits for it and returns its standard output. If it fails, the
// error contains the end of its standard error.
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

// tail returns the end of a long output.
func tail(text string) string {
	const size = 2000
	text = strings.TrimSpace(text)
	if len(text) > size {
		text = "..." + text[len(text)-size:]
	}
	return text
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the process has ended and returns the error of exec.Cmd.Wait.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Output returns what the process has written so far.
func (p *Process) Output() string { return p.output.String() }

// Signal sends a signal to the process group. It returns os.ErrProcessDone if the
// process has ended.
func (p *Process) Signal(signal syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return unix.Kill(-p.cmd.Process.Pid, signal)
	}
}

// Stop ends the process and its children with SIGTERM, then with SIGKILL after five
// seconds. It returns what Wait returns.
func (p *Process) Stop() error { return p.stop(syscall.SIGTERM) }

// Interrupt is like Stop but begins with SIGINT.
func (p *Process) Interrupt() error { return p.stop(syscall.SIGINT) }

func (p *Process) stop(signal syscall.Signal) error {
	if p.Signal(signal) != nil {
		return p.Wait()
	}
	select {
	case <-p.done:
	case <-time.After(stopTime):
	}
	// Children may have outlived the process.
	_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	return p.Wait()
}

// WaitOutput waits until the output contains the text. It fails if the process or the
// context ends first.
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

// ending describes how the process ended, with the end of its output.
func (p *Process) ending() string {
	if p.err == nil {
		return "exit status 0: " + tail(p.Output())
	}
	return p.err.Error() + ": " + tail(p.Output())
}

// buffer is a bytes.Buffer that several goroutines may use.
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
