// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// WaitTCP waits until a program listens on a TCP port of the host. It reads the kernel's
// socket table, because a connection would be one more flow in a test. If p is not
// nil, the wait fails when p ends.
func (h *Host) WaitTCP(ctx context.Context, p *Process, port int) error {
	return h.waitPort(ctx, p, "tcp", "0A", port)
}

// WaitUDP waits until a UDP port of the host is bound. p is as in WaitTCP.
func (h *Host) WaitUDP(ctx context.Context, p *Process, port int) error {
	return h.waitPort(ctx, p, "udp", "07", port)
}

func (h *Host) waitPort(ctx context.Context, p *Process, proto, state string, port int) error {
	var ended <-chan struct{}
	if p != nil {
		ended = p.done
	}
	for {
		found := false
		err := h.Do(func() (err error) {
			found, err = listens(proto, state, port)
			return err
		})
		if err != nil || found {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("host %q: nothing listens on %s port %d: %w", h.name, proto, port, ctx.Err())
		case <-ended:
			return fmt.Errorf("host %q: %q ended before it listened on %s port %d: %s", h.name, p.name, proto, port, p.ending())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// listens reads the socket tables of the thread's namespace. state is in hex, as there.
func listens(proto, state string, port int) (bool, error) {
	for _, table := range []string{proto, proto + "6"} {
		file, err := os.Open("/proc/thread-self/net/" + table)
		if err != nil {
			return false, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			// sl local_address rem_address st ...
			fields := strings.Fields(lines.Text())
			if len(fields) > 3 && fields[3] == state && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				_ = file.Close()
				return true, nil
			}
		}
		_ = file.Close()
	}
	return false, nil
}

// Until calls check until it returns true or an error, or the context ends. what names
// the condition in the error.
func Until(ctx context.Context, what string, check func() (bool, error)) error {
	for {
		ok, err := check()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
