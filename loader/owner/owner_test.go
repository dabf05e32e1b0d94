// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/lab"
)

// ends returns two hosts on a wire.
func ends(t *testing.T) (a, b *lab.Host) {
	t.Helper()
	l := lab.ForTest(t)
	a, err := l.Host("a")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Host("b"); err != nil {
		t.Fatal(err)
	}
	err = l.Wire(lab.Wire{
		A: lab.End{Host: a, Iface: "eth0", Addrs: []string{"10.0.0.1/24", "fd00::1/64"}},
		B: lab.End{Host: b, Iface: "eth0", Addrs: []string{"10.0.0.2/24", "fd00::2/64"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// start begins to watch the sockets of a host.
func start(t *testing.T, h *lab.Host) *Watch {
	t.Helper()
	var w *Watch
	err := h.Do(func() (err error) {
		var problem error
		w, problem, err = Start()
		if problem != nil {
			t.Errorf("older sockets: %v", problem)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// self is the name of this process.
func self(t *testing.T) string {
	t.Helper()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}

func addrPort(a net.Addr) netip.AddrPort {
	at := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// wantSelf checks that a flow is known to be of this process.
func wantSelf(t *testing.T, f *Finder, what string, q Flow) {
	t.Helper()
	p, found := f.Find(&q)
	if found != Known || p.PID != os.Getpid() || p.Name != self(t) || p.Cgroup == 0 {
		t.Errorf("%s %v: %v %+v, want pid %d, %q", what, q, found, p, os.Getpid(), self(t))
	}
}

func TestFind(t *testing.T) {
	a, b := ends(t)
	ctx := t.Context()
	for _, family := range []struct{ name, a, b, all string }{
		{"IPv4", "10.0.0.1", "10.0.0.2", "0.0.0.0"}, {"IPv6", "[fd00::1]", "[fd00::2]", "[::]"},
	} {
		t.Run(family.name, func(t *testing.T) {
			// Older than the watch: a connection of each side, and a UDP socket.
			listener, err := b.Listen(ctx, family.b+":7000")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			accepted := make(chan net.Conn, 8)
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					accepted <- c
				}
			}()
			dial := func(from *lab.Host, to string) net.Conn {
				c, err := from.Dial(ctx, "tcp", "", to)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			old := dial(a, family.b+":7000")
			defer (<-accepted).Close()
			oldUDP, err := a.ListenUDP(ctx, family.a+":7001")
			if err != nil {
				t.Fatal(err)
			}
			defer oldUDP.Close()

			client, server := start(t, a).Finder(), start(t, b).Finder()
			now := time.Now()
			tcp := func(c net.Conn) Flow {
				return Flow{Proto: flow.TCP, Src: addrPort(c.LocalAddr()), Dst: addrPort(c.RemoteAddr()), First: now, Last: time.Now()}
			}
			back := func(q Flow) Flow { q.Src, q.Dst = q.Dst, q.Src; return q }
			wantSelf(t, client, "older connection, client", tcp(old))
			wantSelf(t, client, "older connection, client, server first", back(tcp(old)))
			wantSelf(t, server, "older connection, server", tcp(old))
			fresh := dial(a, family.b+":7000")
			defer (<-accepted).Close()
			wantSelf(t, client, "connection, client", tcp(fresh))
			wantSelf(t, server, "connection, server", tcp(fresh))
			wantSelf(t, server, "connection, server's packet first", back(tcp(fresh)))
			closed := tcp(fresh)
			fresh.Close()
			wantSelf(t, client, "closed connection", closed)
			later, err := a.Listen(ctx, family.a+":7003")
			if err != nil {
				t.Fatal(err)
			}
			defer later.Close()
			wantSelf(t, client, "listener", tcp(dial(b, family.a+":7003")))

			peer := netip.MustParseAddrPort(family.b + ":9")
			udp := func(local net.Addr) Flow {
				return Flow{Proto: flow.UDP, Src: addrPort(local), Dst: peer, First: now, Last: time.Now()}
			}
			wantSelf(t, client, "older UDP socket", udp(oldUDP.LocalAddr()))
			wantSelf(t, client, "older UDP socket, as server", back(udp(oldUDP.LocalAddr())))
			wildcard, err := a.ListenUDP(ctx, family.all+":0")
			if err != nil {
				t.Fatal(err)
			}
			q := udp(wildcard.LocalAddr())
			q.Src = netip.AddrPortFrom(netip.MustParseAddr(strings.Trim(family.a, "[]")), q.Src.Port())
			wantSelf(t, client, "UDP on all addresses", q)
			wildcard.Close()
			wantSelf(t, client, "closed UDP socket", q)
			q.First, q.Last = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
			if p, found := client.Find(&q); found != Unknown {
				t.Errorf("a later flow of the port of a closed socket: %v %+v", found, p)
			}
			connected, err := a.Dial(ctx, "udp", "", family.b+":9")
			if err != nil {
				t.Fatal(err)
			}
			q = udp(connected.LocalAddr())
			wantSelf(t, client, "connected UDP socket", q)
			before := q
			before.First, before.Last = q.First.Add(-time.Hour), q.Last.Add(-time.Hour)
			if p, found := client.Find(&before); found != Unknown {
				t.Errorf("an earlier flow of the port of an open socket: %v %+v", found, p)
			}
			connected.Close()
			wantSelf(t, client, "closed connected UDP socket", q)

			foreign := Flow{Proto: flow.TCP, Src: netip.MustParseAddrPort("192.0.2.1:40000"), Dst: netip.MustParseAddrPort("192.0.2.2:7000")}
			if p, found := server.Find(&foreign); found != Foreign {
				t.Errorf("a forwarded flow to the port of a listener: %v %+v", found, p)
			}
			foreign.Proto, foreign.Dst = flow.UDP, netip.MustParseAddrPort("192.0.2.2:7001")
			if p, found := client.Find(&foreign); found != Foreign {
				t.Errorf("a forwarded flow to the port of a UDP socket: %v %+v", found, p)
			}
			none := Flow{Proto: flow.TCP, Src: netip.MustParseAddrPort(family.a + ":1"), Dst: netip.MustParseAddrPort(family.b + ":1")}
			if p, found := client.Find(&none); found != Unknown {
				t.Errorf("no socket: %v %+v", found, p)
			}
		})
	}
}

// A name is that of the process, not of the thread that opens the socket, and sockets of
// another network namespace do not count.
func TestOtherProgram(t *testing.T) {
	a, b := ends(t)
	w := start(t, a)
	other := start(t, b)
	server, err := b.Listen(t.Context(), "10.0.0.2:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	script := `import socket, threading, time
def work():
    open('/proc/thread-self/comm', 'w').write('a-thread')
    s = socket.create_connection(('10.0.0.2', 7000)); print('%s:%d' % s.getsockname(), flush=True); time.sleep(60)
threading.Thread(target=work).start()`
	program, err := lab.FindProgram("python3")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	process, err := a.Start(t.Context(), program, "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := process.WaitOutput(ctx, "\n"); err != nil {
		t.Fatal(err)
	}
	src := netip.MustParseAddrPort(strings.TrimSpace(process.Output()))
	q := Flow{Proto: flow.TCP, Src: src, Dst: netip.MustParseAddrPort("10.0.0.2:7000")}
	if p, found := w.Finder().Find(&q); found != Known || !strings.HasPrefix(p.Name, "python") {
		t.Errorf("%v %+v, want python", found, p)
	}
	if p, found := other.Finder().Find(&q); found != Known || p.PID != os.Getpid() {
		t.Errorf("the other end: %v %+v, want pid %d", found, p, os.Getpid())
	}
}

// A port belongs to who listened on it during the flow, not to who did before, on whatever
// addresses.
func TestListenerClosed(t *testing.T) {
	a, b := ends(t)
	ctx := t.Context()
	program, err := lab.FindProgram("python3")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	listen := func(address string) *lab.Process {
		t.Helper()
		p, err := a.Start(ctx, program, "-c", `import socket, sys, time
host, port = sys.argv[1].rsplit(':', 1)
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind((host, int(port))); s.listen(); print('ready', flush=True); time.sleep(60)`, address)
		if err != nil {
			t.Fatal(err)
		}
		ready, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := p.WaitOutput(ready, "ready"); err != nil {
			t.Fatal(err)
		}
		return p
	}
	type test struct {
		before, now string // listeners of Python, and of this process
		to          []string
	}
	tests := []test{
		{"0.0.0.0:7000", "[::]:7000", []string{"10.0.0.1:7000", "[fd00::1]:7000"}},
		{"10.0.0.1:7001", "0.0.0.0:7001", []string{"10.0.0.1:7001"}},
		{"fd00::1:7002", "[::]:7002", []string{"[fd00::1]:7002"}},
	}
	var old []*lab.Process
	for _, test := range tests {
		old = append(old, listen(test.before)) // older than the watch
	}
	w := start(t, a)
	find := func(to string, began time.Time) (Process, Found) {
		t.Helper()
		c, err := b.Dial(ctx, "tcp", "", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if began.IsZero() {
			began = time.Now()
		}
		return w.Finder().Find(&Flow{Proto: flow.TCP, Src: addrPort(c.LocalAddr()), Dst: addrPort(c.RemoteAddr()), First: began, Last: began})
	}
	for round, name := range []string{"older", "younger"} {
		for n, test := range tests {
			if round > 0 {
				old[n] = listen(test.before)
			}
			if p, found := find(test.to[0], time.Time{}); found != Known || !strings.HasPrefix(p.Name, "python") {
				t.Errorf("%s, %s listens: %v %+v", name, test.before, found, p)
			}
			during := time.Now()
			_ = old[n].Stop() // says that a signal ended it
			time.Sleep(2 * slack)
			listener, err := a.Listen(ctx, test.now)
			if err != nil {
				t.Fatal(err)
			}
			for _, to := range test.to {
				if p, found := find(to, time.Time{}); found != Known || p.PID != os.Getpid() {
					t.Errorf("%s, %s was closed, %s listens: %v %+v", name, test.before, test.now, found, p)
				}
			}
			if p, found := find(test.to[0], during); found != Known || !strings.HasPrefix(p.Name, "python") {
				t.Errorf("%s, an earlier flow to %s: %v %+v", name, test.before, found, p)
			}
			listener.Close()
		}
	}

	// Programs that listen on addresses of one family each, whoever came last.
	four := listen("0.0.0.0:7003")
	six, err := a.Start(ctx, program, "-c", `import socket, time
open('/proc/self/comm', 'w').write('six')
s = socket.create_server(('::', 7003), family=socket.AF_INET6); print('ready', flush=True); time.sleep(60)`)
	if err != nil {
		t.Fatal(err)
	}
	if err := six.WaitOutput(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	if p, found := find("10.0.0.1:7003", time.Time{}); found != Known || !strings.HasPrefix(p.Name, "python") {
		t.Errorf("IPv4: %v %+v", found, p)
	}
	if p, found := find("[fd00::1]:7003", time.Time{}); found != Known || p.Name != "six" {
		t.Errorf("IPv6: %v %+v", found, p)
	}

	// Of two on the same port, the last one was closed.
	_ = six.Stop()
	_ = listen("0.0.0.0:7003").Stop()
	time.Sleep(2 * slack)
	if p, found := find("10.0.0.1:7003", time.Time{}); found != Known || !strings.HasPrefix(p.Name, "python") {
		t.Errorf("one of two listeners is left: %v %+v", found, p)
	}
	_ = four.Stop()
}

// Another process finds the maps by their pins, which go with the watch.
func TestPin(t *testing.T) {
	a, b := ends(t)
	dir := filepath.Join("/sys/fs/bpf", filepath.Base(t.TempDir())+"-owner")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Skipf("SKIPPED, needs a BPF file system: %v", err)
	}
	defer os.Remove(dir)
	if _, err := Open(dir); !errors.Is(err, ErrNoWatch) {
		t.Errorf("nothing is pinned: %v", err)
	}
	w := start(t, a)
	for range 2 { // the second one replaces what the first one left
		if err := w.Pin(dir); err != nil {
			t.Fatal(err)
		}
	}
	server, err := b.Listen(t.Context(), "[fd00::2]:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := a.Dial(t.Context(), "tcp", "", "[fd00::2]:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var f *Finder
	if err := a.Do(func() (err error) { f, err = Open(dir); return err }); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantSelf(t, f, "by pins", Flow{Proto: flow.TCP, Src: addrPort(c.LocalAddr()), Dst: addrPort(c.RemoteAddr())})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("pins are left: %v %v", left, err)
	}
}

func TestCgroupName(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for path, want := range map[string]string{
		"/":                                "root",
		"/system.slice/nginx.service":      "nginx.service",
		"/system.slice/nginx.service/work": "nginx.service",
		`/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Maps\x2dx-1.scope`: "app-org.gnome.Maps-x-1.scope",
		"/system.slice/docker-" + id + ".scope":                                                   "docker-0123456789ab",
		"/docker/" + id:                                                                           "container-0123456789ab",
		"/docker/" + id + "/init":                                                                 "container-0123456789ab",
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope":                     "cri-containerd-0123456789ab",
		"/lxc.payload.web":                                                                        "lxc.payload.web",
		"/mine/deep":                                                                              "deep",
	} {
		if got := CgroupName(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestFindCgroup2(t *testing.T) {
	const mounts = `30 22 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 22 0:27 /part /mnt/part rw - cgroup2 none rw
32 22 0:27 / /sys/fs/cgroup/unified\040x rw,relatime shared:9 - cgroup2 none rw
33 22 0:27 / /a/longer/path/to/the/same/tree/as/above rw - cgroup2 none rw
`
	if got := findCgroup2(mounts); got != "/sys/fs/cgroup/unified x" {
		t.Errorf("%q", got)
	}
	if got := findCgroup2(""); got != "" {
		t.Errorf("%q", got)
	}
}

// BenchmarkFind measures a look-up: of a connection, of a UDP socket, of a forwarded flow.
func BenchmarkFind(b *testing.B) {
	l := lab.ForTest(b)
	h, err := l.Host("a")
	if err != nil {
		b.Fatal(err)
	}
	var w *Watch
	if err := h.Do(func() (err error) { w, _, err = Start(); return err }); err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	listener, err := h.Listen(b.Context(), "127.0.0.1:7000")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	c, err := h.Dial(b.Context(), "tcp", "", "127.0.0.1:7000")
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	u, err := h.ListenUDP(b.Context(), "127.0.0.1:7001")
	if err != nil {
		b.Fatal(err)
	}
	defer u.Close()
	for _, one := range []struct {
		name string
		q    Flow
		want Found
	}{
		{"TCP", Flow{Proto: flow.TCP, Src: addrPort(c.LocalAddr()), Dst: addrPort(c.RemoteAddr())}, Known},
		{"UDP", Flow{Proto: flow.UDP, Src: addrPort(u.LocalAddr()), Dst: netip.MustParseAddrPort("127.0.0.1:9")}, Known},
		{"forwarded", Flow{Proto: flow.TCP, Src: netip.MustParseAddrPort("192.0.2.1:1"), Dst: netip.MustParseAddrPort("192.0.2.2:2")}, Foreign},
	} {
		b.Run(one.name, func(b *testing.B) {
			for b.Loop() {
				if _, found := w.Finder().Find(&one.q); found != one.want {
					b.Fatalf("%v", found)
				}
			}
		})
	}
}
