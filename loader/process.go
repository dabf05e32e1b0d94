// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/fault"
)

// process is the process of an agent. Its id cannot pass to another process while it is
// open. The zero value is no process.
type process struct {
	pid, fd int
}

// processOf opens the process of the agent that holds a pin directory. It returns no
// process if none holds it, or if that does not say it is an agent: an attach that has just
// begun, or another detach.
func processOf(dir string) *process {
	pid := agentPID(dir)
	if pid <= 1 || pid == os.Getpid() {
		return &process{}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return &process{}
	}
	// Only now: before, the id could have passed to another process.
	if holder(dir) != pid {
		unix.Close(fd)
		return &process{}
	}
	return &process{pid, fd}
}

// ended reports whether there was no process, or it has ended.
func (p *process) ended() bool {
	if p.pid == 0 {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// stopped reports whether somebody stopped the process: SIGSTOP, Ctrl-Z or a debugger.
func (p *process) stopped() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	// 4711 (name) T ...; the name may hold anything.
	state := bytes.LastIndexByte(text, ')') + 2
	return len(text) > state && (text[state] == 'T' || text[state] == 't')
}

func (p *process) terminate() error { return p.signal(unix.SIGTERM) }
func (p *process) resume() error    { return p.signal(unix.SIGCONT) }
func (p *process) kill() error      { return p.signal(unix.SIGKILL) }

func (p *process) signal(signal unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd, signal, nil, 0)
	if err == nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fault.Advise(fmt.Errorf("signal the agent, process %d: %w", p.pid, err), "run as root, or as the user who runs the agent")
}

func (p *process) close() {
	if p.pid != 0 {
		unix.Close(p.fd)
	}
	p.pid = 0
}
