// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/lab"
)

// Round is one run of a program: its servers, and clients that use them for a while.
type Round struct {
	draw
	Program *Program
	Quick   bool    // sessions should be short
	Dir     string  // for files of the round, which removes it
	Servers []*Node // on the far side; the first one is the server that clients know
	Clients []*Client

	id      string // PROGRAM-NUMBER, or PROGRAM-in-TUNNEL-NUMBER
	net     *network
	lab     *lab.Lab
	tunnel  *tunnel // nil: none
	gateway *Node   // of the tunnel
	link    *link   // nil: the hosts are on both sides of the router
	relays  []*Node // more hosts of the tunnel on the far side
	ca      *lab.Authority
	dumps   []*dump
}

// job says which round to run.
type job struct {
	program *Program
	tunnel  *tunnel
	number  int  // of the rounds of this program in this tunnel
	scarce  bool // the program has few flows in a round
}

func (j job) id() string {
	if j.tunnel != nil {
		return fmt.Sprintf("%s-in-%s-%03d", j.program.Name, j.tunnel.name, j.number)
	}
	return fmt.Sprintf("%s-%03d", j.program.Name, j.number)
}

// category returns the category of the program's packets. If the packets are seen inside
// a tunnel, it is the one with vpn-, where dpclass knows such a category.
func (j job) category() string {
	if inside := "vpn-" + j.program.Category; j.tunnel != nil && slices.Contains(flow.Categories, inside) {
		return inside
	}
	return j.program.Category
}

// Server returns the server that the clients use.
func (r *Round) Server() *Node { return r.Servers[0] }

// Port draws a port for the server. It returns each port once in a round.
func (r *Round) Port() int { return r.Server().Port(r.draw) }

// CA returns the round's certificate authority.
func (r *Round) CA() (*lab.Authority, error) {
	if r.ca == nil {
		var err error
		if r.ca, err = lab.NewAuthority(r.Dir); err != nil {
			return nil, err
		}
	}
	return r.ca, nil
}

// Certificate returns a certificate for the server's name, and the path of the CA's. All
// programs may read the files.
func (r *Round) Certificate() (lab.Certificate, string, error) {
	ca, err := r.CA()
	if err != nil {
		return lab.Certificate{}, "", err
	}
	cert, err := ca.Issue(r.Server().Name)
	if err != nil {
		return lab.Certificate{}, "", err
	}
	for _, file := range []string{ca.File, cert.Cert, cert.Key} {
		if err := os.Chmod(file, 0o644); err != nil {
			return lab.Certificate{}, "", err
		}
	}
	return cert, ca.File, nil
}

// pausing is the pause of a client between two sessions.
const pausing = 2 * time.Second

// run runs the round for the given time, and the time to set it up at most, and returns its captures. Errors of single
// sessions come after the captures are complete.
func (r *Round) run(ctx context.Context, length, setup time.Duration, clients int) (dumps []*dump, err error) {
	if r.lab, err = lab.New(r.id); err != nil {
		return nil, err
	}
	r.Dir = r.lab.Dir()
	var stacks []stack
	defer func() {
		err = errors.Join(err, r.lab.Close())
		for _, s := range stacks {
			err = errors.Join(err, r.net.detach(context.WithoutCancel(ctx), s))
		}
	}()
	// Whatever hangs, the round ends.
	if r.tunnel != nil && r.tunnel.slow {
		setup *= 2
	}
	ctx, cancel := context.WithTimeout(ctx, length+setup)
	defer cancel()
	defer func() {
		if err != nil { // a program that the end of the context has killed says only that
			err = errors.Join(err, ctx.Err())
		}
	}()
	node := func(name string, far bool) (*Node, error) {
		n, err := r.node(ctx, name, far)
		if err != nil {
			return nil, err
		}
		if r.link == nil {
			stacks = append(stacks, n.stack)
		}
		return n, nil
	}
	if r.Program.OneLink {
		if err := r.newLink(ctx); err != nil {
			return nil, err
		}
	}
	for i := range max(1, r.Program.Peers) {
		n, err := node(fmt.Sprintf("server%d", i), true)
		if err != nil {
			return nil, err
		}
		r.Servers = append(r.Servers, n)
	}
	for i := range clients {
		n, err := node(fmt.Sprintf("client%d", i), false)
		if err != nil {
			return nil, err
		}
		own := draw{newDraw(r.Uint64(), n.Name).Rand}
		r.Clients = append(r.Clients, &Client{Node: n, draw: own, Round: r, Number: i, six: own.Chance(.4)})
	}
	if r.tunnel != nil {
		if r.gateway, err = node("gateway", true); err != nil {
			return nil, err
		}
		for i := range r.tunnel.relays {
			relay, err := node(fmt.Sprintf("relay%d", i), true)
			if err != nil {
				return nil, err
			}
			r.relays = append(r.relays, relay)
		}
	}
	if err := r.writeHosts(); err != nil {
		return nil, err
	}
	if err := r.openTunnel(ctx); err != nil {
		return nil, err
	}
	if err := r.writeHosts(); err != nil { // with the addresses inside the tunnel
		return nil, err
	}
	session, err := r.Program.Start(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	err = r.sessions(ctx, session, length)
	// The last packets are still on their way.
	_ = wait(ctx, 300*time.Millisecond)
	for _, d := range r.dumps {
		err = errors.Join(err, d.stop(ctx))
	}
	return r.dumps, err
}

// setupTime is the limit for starting the servers and tunnels of a round.
const setupTime = 60 * time.Second

// openTunnel begins the captures, and opens the tunnel if there is one.
func (r *Round) openTunnel(ctx context.Context) error {
	if r.link != nil {
		return r.capture(ctx, r.link.bridge, bridgeDevice, "udp or tcp") // nobody else is there
	}
	if r.tunnel == nil {
		return r.capture(ctx, r.net.router, "eth0", r.clientHosts()+" and "+hosts(r.Servers))
	}
	if err := r.capture(ctx, r.net.router, "eth0", r.clientHosts()+" and "+hosts(r.gateways())); err != nil {
		return err
	}
	if err := r.tunnel.start(ctx, r); err != nil {
		return fmt.Errorf("%s: %w", r.tunnel.name, err)
	}
	if r.tunnel.streams != nil {
		return nil
	}
	for _, c := range r.Clients {
		if err := r.capture(ctx, c.Host, r.tunnel.device, hosts(r.Servers)); err != nil {
			return err
		}
	}
	return nil
}

// hosts returns a filter for the packets of nodes. All captures have one: what a program
// sends to others, such as its vendor, goes nowhere, and its label would say too much.
func hosts(nodes []*Node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, "host "+n.stack.addr4.String(), "host "+n.stack.addr6.String())
	}
	return "(" + strings.Join(all, " or ") + ")"
}

func (r *Round) clientHosts() string {
	var clients []*Node
	for _, c := range r.Clients {
		clients = append(clients, c.Node)
	}
	return hosts(clients)
}

// frameSize is more than any frame of the lab has: MTU is 1500, and offloads are off.
const frameSize = 2048

// capture begins a capture.
func (r *Round) capture(ctx context.Context, host *lab.Host, device, filter string) error {
	file := filepath.Join(r.net.lab.Dir(), fmt.Sprintf("%s-%d.pcap", r.id, len(r.dumps)))
	process, err := host.CaptureFrames(context.WithoutCancel(ctx), device, file, frameSize, filter)
	if err != nil {
		return err
	}
	d := &dump{process: process, file: file, tunnel: r.tunnel, inside: r.tunnel != nil && host != r.net.router}
	for _, c := range r.Clients {
		d.clients = append(d.clients, c.stack.addr4, c.stack.addr6, c.Addr4, c.Addr6)
	}
	r.dumps = append(r.dumps, d)
	return nil
}

// errLost is why a round is run again: the machine was too busy for tcpdump.
var errLost = errors.New("tcpdump has lost packets")

// What tcpdump says when it ends, and on SIGUSR1.
var (
	droppedPackets = regexp.MustCompile(`(\d+) packets? dropped by kernel`)
	packetCounts   = regexp.MustCompile(`(\d+) packets? captured, (\d+) packets? received by filter`)
)

// stop ends a capture. What tcpdump has not read when it is interrupted, it forgets, so
// that is waited for.
func (d *dump) stop(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = lab.Until(waiting, "tcpdump", func() (bool, error) {
		if said := packetCounts.FindAllStringSubmatch(d.process.Output(), -1); len(said) > 0 {
			last := said[len(said)-1]
			// It may have received packets that it never reads: some from before its filter was set.
			same := len(said) >= 5 && !slices.ContainsFunc(said[len(said)-5:], func(s []string) bool { return s[0] != last[0] })
			if last[1] == last[2] || same {
				return true, nil
			}
		}
		return false, d.process.Signal(syscall.SIGUSR1)
	})
	if err := d.process.Interrupt(); err != nil {
		return fmt.Errorf("tcpdump: %w: %s", err, d.process.Output())
	}
	if lost := droppedPackets.FindAllStringSubmatch(d.process.Output(), -1); len(lost) == 0 || lost[len(lost)-1][1] != "0" {
		return fmt.Errorf("%w: %s", errLost, d.process.Output())
	}
	return nil
}

// node creates a host of the round.
func (r *Round) node(ctx context.Context, name string, far bool) (*Node, error) {
	var s stack
	if r.link != nil {
		s = r.link.stack(r.draw)
	} else {
		s = r.net.claim(r.draw)
	}
	n := &Node{Dir: filepath.Join(r.Dir, name), Name: r.name(), stack: s, ports: map[int]bool{}, Addr4: s.addr4, Addr6: s.addr6}
	err := os.Mkdir(n.Dir, 0o755)
	if err == nil {
		n.Host, err = r.lab.Host(name)
	}
	switch {
	case err != nil:
	case r.link != nil:
		err = r.link.attach(ctx, r.net, n.Host, s)
	default:
		n.link, err = r.net.attach(ctx, n.Host, s, far)
	}
	if err != nil && r.link == nil {
		r.net.release(s)
	}
	return n, err
}

// writeHosts gives each node its /etc/hosts and an /etc/resolv.conf that asks nobody.
func (r *Round) writeHosts() error {
	write := func(n *Node, address func(*Node) []string) error {
		lines := []string{"127.0.0.1 localhost", "::1 localhost"}
		for _, server := range slices.Concat(r.Servers, r.gateways()) {
			for _, a := range address(server) {
				lines = append(lines, a+" "+server.Name)
			}
		}
		if !slices.Contains(r.gateways(), n) && !slices.Contains(r.Servers, n) {
			lines = append(lines, n.Addr4.String()+" "+n.Name)
		}
		if _, err := n.Write("resolv.conf", "nameserver 127.0.0.1\n"); err != nil {
			return err
		}
		_, err := n.Write("hosts", strings.Join(lines, "\n")+"\n")
		return err
	}
	for _, n := range slices.Concat(r.Servers, r.gateways()) {
		if err := write(n, func(s *Node) []string { return []string{s.Addr4.String(), s.Addr6.String()} }); err != nil {
			return err
		}
	}
	for _, c := range r.Clients {
		if err := write(c.Node, func(s *Node) []string { return []string{c.of(s).String()} }); err != nil {
			return err
		}
	}
	return nil
}

// gateways returns the tunnel's hosts on the far side, if there is a tunnel.
func (r *Round) gateways() []*Node {
	if r.gateway == nil {
		return nil
	}
	return append([]*Node{r.gateway}, r.relays...)
}

// sessions lets all clients use the program until the time is over.
func (r *Round) sessions(ctx context.Context, session Session, length time.Duration) error {
	until := time.Now().Add(length)
	limited, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	errs, failed := make([]error, len(r.Clients)), make([]error, len(r.Clients))
	var worked atomic.Bool // a session
	var clients sync.WaitGroup
	for i, c := range r.Clients {
		c.until = until
		clients.Go(func() {
			for n := 0; limited.Err() == nil; n++ {
				if n > 0 && c.Think(limited, pausing) != nil {
					return
				}
				err := session(limited, c)
				switch {
				case err != nil && limited.Err() == nil && r.fails():
					failed[i] = err
				case err != nil && limited.Err() == nil:
					errs[i] = err
					return
				default:
					worked.Store(true)
				}
			}
		})
	}
	clients.Wait()
	if !worked.Load() {
		errs = append(errs, failed...)
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// fails reports whether single connections fail although all is right, as they do in Tor
// when a circuit cannot be built.
func (r *Round) fails() bool { return r.tunnel != nil && r.tunnel.streams != nil }
