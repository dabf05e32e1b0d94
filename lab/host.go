// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a network namespace.
type Host struct {
	lab   *Lab
	name  string
	netns string

	handle netns.NsHandle
	tasks  chan func() // for the one thread that starts processes
	done   chan struct{}

	mu        sync.Mutex
	processes []*Process
}

// Name returns the name that was given to [Lab.Host].
func (h *Host) Name() string { return h.name }

// Netns returns the name of the namespace, as "ip netns" and "dpclass --netns" take it.
func (h *Host) Netns() string { return h.netns }

// Lab returns the lab that the host belongs to.
func (h *Host) Lab() *Lab { return h.lab }

func (h *Host) init() error {
	handle, err := netns.GetFromName(h.netns)
	if err != nil {
		return err
	}
	h.handle = handle
	ready := make(chan error)
	go h.work(int(handle), ready)
	if err := <-ready; err != nil {
		return err
	}
	return h.Do(func() error {
		// Without duplicate address detection an address works at once.
		for _, which := range []string{"all", "default"} {
			for name, value := range map[string]string{"disable_ipv6": "0", "accept_dad": "0", "dad_transmits": "0", "router_solicitations": "0"} {
				if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", which, name), []byte(value), 0); err != nil {
					return err
				}
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

// work runs on the host's own thread, which stays in the namespace and starts the host's
// processes. It must not end before them: Pdeathsig kills a process when the thread that
// started it ends.
func (h *Host) work(namespace int, ready chan<- error) {
	runtime.LockOSThread()
	err := unix.Setns(namespace, unix.CLONE_NEWNET)
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case task := <-h.tasks:
			task()
		case <-h.done:
			return
		}
	}
}

// Do runs fn in the host's namespace, on a thread of its own. Goroutines that fn starts
// run outside the namespace, so fn has to open its sockets itself.
func (h *Host) Do(fn func() error) error {
	result := make(chan error)
	go func() {
		// The thread stays locked and ends with the goroutine: no need to switch back.
		runtime.LockOSThread()
		if err := unix.Setns(int(h.handle), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("host %q: setns: %w", h.name, err)
			return
		}
		result <- fn()
	}()
	return <-result
}

// Sysctl changes a kernel setting in the namespace, as in
// Sysctl("net/ipv4/ip_forward", "1").
func (h *Host) Sysctl(name, value string) error {
	return h.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return fmt.Errorf("host %q: %w", h.name, err)
		}
		return nil
	})
}

// Forward turns on IPv4 and IPv6 forwarding, which makes the host a router.
func (h *Host) Forward() error {
	for _, setting := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := h.Sysctl(setting, "1"); err != nil {
			return err
		}
	}
	return nil
}

// Route adds a route to a prefix, or to "default", as in Route("10.0.2.0/24", "10.0.1.1").
func (h *Host) Route(to, via string) error {
	gateway, err := netip.ParseAddr(via)
	if err != nil {
		return fmt.Errorf("host %q: route to %s: %w", h.name, to, err)
	}
	route := &netlink.Route{Gw: gateway.AsSlice()}
	if to == "default" {
		to = "0.0.0.0/0"
		if gateway.Is6() {
			to = "::/0"
		}
	}
	if route.Dst, err = netlink.ParseIPNet(to); err != nil {
		return fmt.Errorf("host %q: route to %s: %w", h.name, to, err)
	}
	return h.Do(func() error {
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("host %q: route to %s via %s: %w", h.name, to, via, err)
		}
		return nil
	})
}

// AddAddrs gives a device more addresses, each with its prefix length. Programs may
// listen on them; without asking for one, they send from the first address as before.
func (h *Host) AddAddrs(iface string, addrs ...string) error {
	link, err := h.Link(iface)
	if err != nil {
		return err
	}
	return h.Do(func() error { return addAddrs(link, addrs, true) })
}

// Link returns a network device of the host.
func (h *Host) Link(iface string) (link netlink.Link, err error) {
	err = h.Do(func() error {
		if link, err = netlink.LinkByName(iface); err != nil {
			return fmt.Errorf("host %q: device %q: %w", h.name, iface, err)
		}
		return nil
	})
	return link, err
}

// Listen opens a listening TCP socket in the namespace.
func (h *Host) Listen(ctx context.Context, address string) (listener net.Listener, err error) {
	err = h.Do(func() error {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		return err
	})
	return listener, err
}

// ListenUDP opens a UDP socket in the namespace.
func (h *Host) ListenUDP(ctx context.Context, address string) (conn *net.UDPConn, err error) {
	err = h.Do(func() error {
		packet, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
		if err == nil {
			conn = packet.(*net.UDPConn)
		}
		return err
	})
	return conn, err
}

// Dial connects from within the namespace. The addresses are literal ADDR:PORT; local
// is the address to send from, or "" for any.
func (h *Host) Dial(ctx context.Context, network, local, remote string) (conn net.Conn, err error) {
	dialer := net.Dialer{}
	if local != "" {
		from, err := netip.ParseAddrPort(local)
		if err != nil {
			return nil, fmt.Errorf("host %q: dial from %q: %w", h.name, local, err)
		}
		if strings.HasPrefix(network, "udp") {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(from)
		} else {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
	}
	err = h.Do(func() error {
		conn, err = dialer.DialContext(ctx, network, remote)
		return err
	})
	return conn, err
}

func (h *Host) close() error {
	h.stopProcesses()
	path := filepath.Join(netnsDir, h.netns)
	killIn(path) // grandchildren that have left their process group
	close(h.done)
	var err error
	if h.handle.IsOpen() {
		err = h.handle.Close()
	}
	err = errors.Join(err, netns.DeleteNamed(h.netns))
	if err != nil {
		return fmt.Errorf("host %q: %w", h.name, err)
	}
	return nil
}

func (h *Host) stopProcesses() {
	h.mu.Lock()
	processes := h.processes
	h.processes = nil
	h.mu.Unlock()
	for i := len(processes) - 1; i >= 0; i-- {
		_ = processes[i].Stop() // a process that is killed always returns an error
	}
}
