// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dpclass/dpclass/lab"
)

// Node is a host of a round. Each program that is started has a process tree, a host name,
// /etc/hosts, /etc/resolv.conf, /tmp and /run of its own, so it leaves nothing behind. Its
// children end with it, and it ends with the lab, however that ends.
type Node struct {
	*lab.Host
	Dir   string // home directory of the programs; the round removes it
	Name  string // host name, which clients can resolve
	stack stack
	link  string // the device on the other side of eth0
	ports map[int]bool

	Addr4, Addr6 netip.Addr // inside the tunnel, if there is one
}

// private gives a program its own view of the machine: $1 is the node's directory, $2
// its name. The shell is the first process of the namespace; it waits for the program,
// because a first process ignores SIGTERM.
//
// unshare asks the kernel to kill the shell when it dies, but only after the fork. If it is
// killed in between, which takes longer on a busy machine, the shell and all that it starts
// would run for ever. So the shell looks whether unshare is still its parent. /proc is still
// that of the machine then.
const private = `read -r _ _ _ parent _ < /proc/self/stat
read -r parent < "/proc/$parent/comm" && [ "$parent" = unshare ] || exit 1
mount -t proc proc /proc
dir=$1; lab=${dir%/*}; here=$(pwd); hostname "$2"; shift 2
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd /run/lock /run/lab
mount --bind "$lab" /run/lab && mount -t tmpfs tmpfs /tmp && mkdir -p "$lab" && mount --move /run/lab "$lab"
cd "$here"
mount --bind "$dir/hosts" /etc/hosts
[ ! -e /etc/resolv.conf ] || mount --bind "$dir/resolv.conf" /etc/resolv.conf
"$@"
exit $?`

// Command is like that of [lab.Host], in the node's private view of the machine.
func (n *Node) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	cmd, err := n.Host.Command(ctx, "unshare", append([]string{"--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child",
		"/bin/sh", "-c", private, "sh", n.Dir, n.Name, name}, args...)...)
	if err != nil {
		return nil, err
	}
	// Nothing of the user's environment: it may name proxies.
	cmd.Env = []string{"PATH=" + searchPath, "HOME=" + n.Dir, "XDG_RUNTIME_DIR=" + n.Dir, "TMPDIR=" + n.Dir, "LANG=C.UTF-8", "TERM=xterm",
		"USER=root", "LOGNAME=root", "SHELL=/bin/sh"}
	cmd.Dir = n.Dir
	return cmd, nil
}

// Start is like that of [lab.Host], in the node's private view of the machine.
func (n *Node) Start(ctx context.Context, name string, args ...string) (*lab.Process, error) {
	cmd, err := n.Command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	return n.StartCommand(cmd)
}

// Run runs a program and returns its standard output.
func (n *Node) Run(ctx context.Context, name string, args ...string) (string, error) {
	return n.RunInput(ctx, "", name, args...)
}

// RunInput is like Run, with a standard input.
func (n *Node) RunInput(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd, err := n.Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader(input), &out
	p, err := n.StartCommand(cmd)
	if err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		text := strings.TrimSpace(p.Output())
		return out.String(), fmt.Errorf("host %q: %s %s: %w: %s", n.Host.Name(), name, strings.Join(args, " "), err, text[max(0, len(text)-1000):])
	}
	return out.String(), nil
}

// Write writes a file into the node's directory and returns its path.
func (n *Node) Write(name, content string) (string, error) {
	path := filepath.Join(n.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(content), 0o644)
}

// Port draws a port to listen on. It returns each port once.
func (n *Node) Port(d draw) int {
	for {
		if port := d.port(); !n.ports[port] {
			n.ports[port] = true
			return port
		}
	}
}

// Client is a node that uses the program.
type Client struct {
	*Node
	draw   // of this client alone
	Round  *Round
	Number int // from 0
	six    bool
	until  time.Time
}

// Server returns the address of the server, in the family that this client uses. The
// server's name resolves to the same address.
func (c *Client) Server() netip.Addr { return c.of(c.Round.Server()) }

// of returns the node's address in the client's family.
func (c *Client) of(n *Node) netip.Addr {
	if c.six {
		return n.Addr6
	}
	return n.Addr4
}

// Self returns the client's own address in that family.
func (c *Client) Self() netip.Addr { return c.of(c.Node) }

// Left returns the time until the round is over.
func (c *Client) Left() time.Duration { return max(0, time.Until(c.until)) }

// Think waits as a person does between two actions: about the given time, and shorter
// in a quick run. It returns an error if the context ends meanwhile.
func (c *Client) Think(ctx context.Context, about time.Duration) error {
	pause := time.Duration(float64(about) * c.Between(.3, 3))
	if c.Round.Quick {
		pause = pause / 4
	}
	return wait(ctx, pause)
}

// wait waits for a time or the end of the context, whose error it returns.
func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
