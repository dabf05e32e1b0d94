// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/cmd/dpclass/internal/recorder"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/lab"
)

func testRecord(t *testing.T, s *suite) {
	t.Run("Process", func(t *testing.T) { testRecordProcess(t, s) })
	t.Run("Forwarded", func(t *testing.T) { testRecordForwarded(t, s) })
	t.Run("Loopback", func(t *testing.T) { testRecordLoopback(t, s) })
	t.Run("Cgroup", func(t *testing.T) { testRecordCgroup(t, s) })
	t.Run("Name", func(t *testing.T) { testRecordName(t, s) })
	t.Run("Limits", func(t *testing.T) { testRecordLimits(t, s) })
	t.Run("FullDisk", func(t *testing.T) { testRecordFullDisk(t, s) })
	t.Run("Segments", func(t *testing.T) { testRecordSegments(t, s) })
	t.Run("Fragments", func(t *testing.T) { testRecordFragments(t, s) })
	t.Run("Refusals", func(t *testing.T) { testRecordRefusals(t, s) })
}

// recording is a dpclass record that runs.
type recording struct {
	*lab.Process
	out bytes.Buffer
	dir string
}

// startRecord starts dpclass record on eth0 and returns once it records.
func (s *suite) startRecord(t *testing.T, h *lab.Host, args ...string) *recording {
	t.Helper()
	return s.startRecordIn(t, h, filepath.Join(t.TempDir(), "recorded"), append([]string{"eth0"}, args...)...)
}

func (s *suite) startRecordIn(t *testing.T, h *lab.Host, dir string, args ...string) *recording {
	t.Helper()
	r := &recording{dir: dir}
	cmd, err := h.Command(context.WithoutCancel(t.Context()), s.binary, append([]string{"record", "--out", dir, "-o", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Env = &r.out, s.env()
	if r.Process, err = h.StartCommand(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	if err := r.WaitOutput(testContext(t), "recording "); err != nil {
		t.Fatal(err)
	}
	return r
}

// summary returns what a recording that has ended says.
func (r *recording) summary(t *testing.T) (sum recorder.Summary) {
	t.Helper()
	if err := json.Unmarshal(r.out.Bytes(), &sum); err != nil {
		t.Fatalf("%v: %s%s", err, r.out.String(), r.Output())
	}
	if sum.Lost != 0 || sum.Shed != 0 || sum.Refused != 0 {
		t.Errorf("packets are missing: %+v", sum)
	}
	return sum
}

// interrupt ends a recording by Ctrl-C.
func (r *recording) interrupt(t *testing.T) recorder.Summary {
	t.Helper()
	if err := r.Interrupt(); err != nil {
		t.Fatalf("%v: %s", err, r.Output())
	}
	sum := r.summary(t)
	if sum.Stopped != "interrupted" {
		t.Errorf("stopped: %q, want interrupted", sum.Stopped)
	}
	return sum
}

// ipPackets returns the IP packets of TCP and UDP of a capture, with how they parse.
func ipPackets(t *testing.T, file string, each func(data []byte, p *vector.Packet)) {
	t.Helper()
	reader, err := capture.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for {
		packet, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if p, reason := vector.Parse(packet.Data, packet.Length); reason == vector.OK {
			each(packet.Data[:min(len(packet.Data), p.Length)], &p)
		}
	}
}

// labelled returns the packets of a recording by label.
func labelled(t *testing.T, r *recording, sum recorder.Summary, each func(label string, data []byte, p *vector.Packet)) {
	t.Helper()
	for _, l := range sum.Labels {
		n := 0
		ipPackets(t, filepath.Join(r.dir, l.Path), func(data []byte, p *vector.Packet) { n++; each(l.Label, data, p) })
		if n != l.Packets || n == 0 {
			t.Errorf("label %s: %d packets, and the summary says %d", l.Label, n, l.Packets)
		}
	}
}

// udpClient and udpServer are processes of their own names that exchange datagrams.
const udpClient = `import socket, sys
open('/proc/self/comm', 'w').write('udp-client')
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    for connected in False, True:
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.settimeout(10)
        if connected: s.connect((address, 7007))
        for n in range(3):
            s.send(b'x' * 300) if connected else s.sendto(b'x' * 300, (address, 7007))
            s.recv(1000)
        s.close()
`

const udpServer = `import socket
open('/proc/self/comm', 'w').write('udp-server')
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 7008))
print('ready', flush=True)
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(data, peer)
`

// echo answers datagrams until the test ends.
func echo(t *testing.T, h *lab.Host, address string) {
	t.Helper()
	conn, err := h.ListenUDP(testContext(t), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 2000)
		for {
			n, peer, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(buffer[:n], peer)
		}
	}()
}

// ourName is the label of what this process opens.
func ourName(t *testing.T) string {
	t.Helper()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}

// python returns Python, which is a program with sockets of whatever kind and name.
func python(t *testing.T) string {
	t.Helper()
	path, err := lab.FindProgram("python3")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	return path
}

// testRecordProcess has clients and servers of several programs on one host, over IPv4 and
// IPv6, and connections that are older than the recording. Each packet is in the capture of
// its program, whole, and in no other.
func testRecordProcess(t *testing.T, s *suite) {
	near, far := pair(t, true)
	ctx := testContext(t)
	py := python(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	web, err := far.NGINX(ctx, lab.Web{Port: 443, TLS: true, Files: map[string]int64{"file": 200_000}})
	must(err)
	ssh, err := far.SSHD(ctx, 22, nil)
	must(err)
	for _, address := range []string{"10.0.1.2:7007", "[fd00:1::2]:7007"} {
		echo(t, far, address)
	}
	// On the host itself: an old server, and an old connection of this process.
	oldWeb, err := near.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 100_000}})
	must(err)
	old, err := near.Dial(ctx, "tcp", "", "10.0.1.2:22")
	must(err)
	defer old.Close()
	server, err := near.Start(ctx, py, "-c", udpServer)
	must(err)
	must(server.WaitOutput(ctx, "ready"))

	stop := start(t, near, "eth0", "tcp or udp")
	record := s.startRecord(t, near)
	nearSSH, err := near.SSHD(ctx, 2222, nil) // a new server
	must(err)
	for _, address := range []string{"10.0.1.2", "fd00:1::2"} {
		_, err = near.Run(ctx, "curl", web.CurlArgs(address, "file")...)
		must(err)
		_, err = near.SSH(ctx, ssh, address, "true")
		must(err)
	}
	_, err = near.Run(ctx, py, "-c", udpClient, "10.0.1.2", "fd00:1::2")
	must(err)
	for _, address := range []string{"10.0.1.1", "fd00:1::1"} {
		_, err = far.Run(ctx, "curl", oldWeb.CurlArgs(address, "file")...)
		must(err)
		_, err = far.SSH(ctx, nearSSH, address, "true")
		must(err)
		peer, err := far.Dial(ctx, "udp", "", netip.AddrPortFrom(netip.MustParseAddr(address), 7008).String())
		must(err)
		_, err = peer.Write([]byte("hello"))
		must(err)
		_, err = peer.Read(make([]byte, 10))
		must(err)
		must(peer.Close())
	}
	_, err = old.Write([]byte("SSH-2.0-old\r\n"))
	must(err)
	_, err = old.Read(make([]byte, 10))
	must(err)
	// Both captures end when nothing is under way.
	must(old.SetReadDeadline(time.Now().Add(300 * time.Millisecond)))
	_, _ = io.Copy(io.Discard, old)

	sum := record.interrupt(t)
	whole := map[string]int{} // packets that tcpdump has
	ipPackets(t, stop(), func(data []byte, _ *vector.Packet) { whole[string(data)]++ })
	oldPort := netip.MustParseAddrPort(old.LocalAddr().String()).Port()
	count := map[string]int{}
	labelled(t, record, sum, func(label string, data []byte, p *vector.Packet) {
		ports := []uint16{p.Src.Port(), p.Dst.Port()}
		want := ""
		for port, name := range map[uint16]string{443: "curl", 22: "ssh", 7007: "udp-client", 8080: "nginx", 2222: "sshd", 7008: "udp-server"} {
			if slices.Contains(ports, port) {
				want = name
			}
		}
		if slices.Contains(ports, oldPort) && slices.Contains(ports, 22) {
			want = ourName(t)
		}
		if label != want {
			t.Errorf("packet %v %v -> %v is in %s, want %s", p.Proto, p.Src, p.Dst, label, want)
		}
		family := "4"
		if p.Src.Addr().Is6() {
			family = "6"
		}
		count[label+" IPv"+family]++
		whole[string(data)]--
	})
	for _, name := range []string{"curl", "ssh", "udp-client", "nginx", "sshd", "udp-server"} {
		for _, family := range []string{" IPv4", " IPv6"} {
			if count[name+family] == 0 {
				t.Errorf("%s%s has no packets", name, family)
			}
		}
	}
	missing, more := 0, 0
	for _, n := range whole {
		missing, more = missing+max(n, 0), more+max(-n, 0)
	}
	if missing > 0 || more > 0 || sum.Unknown > 0 {
		t.Errorf("%d packets of tcpdump's are missing, %d are not tcpdump's, %d unknown flows", missing, more, sum.Unknown)
	}
	t.Logf("%d packets of %d flows, all labels right", sum.Packets, sum.Flows)

	// The directory is a data set's source as it is; another run adds to it.
	data := filepath.Join(t.TempDir(), "dataset")
	s.run(t, near, "dataset", "build", "--manifest", record.dir, "--out", data).want(t, cli.ExitDone, "7 captures")
	again := s.startRecordIn(t, near, record.dir, "eth0")
	_, err = near.Run(ctx, "curl", web.CurlArgs("10.0.1.2", "file")...)
	must(err)
	again.interrupt(t)
	s.run(t, near, "dataset", "build", "--manifest", filepath.Join(record.dir, "manifest.csv"), "--out", data+"2").want(t, cli.ExitDone, "8 captures")
	s.run(t, near, "dataset", "build", "--captures", record.dir, "--out", data+"3").want(t, cli.ExitDone, "8 captures")
	left, err := filepath.Glob(filepath.Join(record.dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
}

// testRecordForwarded records on a router with sockets on the ports of others' flows.
func testRecordForwarded(t *testing.T, s *suite) {
	r := routed(t, lab.Topology{})
	ctx := testContext(t)
	web, err := r.Server.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := r.Router.Listen(ctx, ":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, other := range []bool{false, true} {
		args := []string{}
		if other {
			args = append(args, "--other")
		}
		record := s.startRecord(t, r.Router, args...)
		if _, err := r.Client.Run(ctx, "curl", web.CurlArgs(r.ServerAddr4, "file")...); err != nil {
			t.Fatal(err)
		}
		sum := record.interrupt(t)
		if sum.Unknown != 1 || len(sum.Labels) != 1 || sum.Labels[0].Label != "unknown" {
			t.Errorf("%+v, want one unknown flow", sum)
		}
		rows, err := os.ReadFile(filepath.Join(record.dir, "manifest.csv"))
		if listed := strings.Contains(string(rows), ",other,"); err != nil || listed != other {
			t.Errorf("--other %v: %v %s", other, err, rows)
		}
	}
}

// testRecordLoopback: a flow between two programs of the host is that of the one who began
// it, and each packet is recorded once.
func testRecordLoopback(t *testing.T, s *suite) {
	near, _ := pair(t, false)
	ctx := testContext(t)
	web, err := near.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 300_000}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "recorded")
	record := s.startRecordIn(t, near, dir, "lo")
	for _, address := range []string{"127.0.0.1", "::1"} {
		if _, err := near.Run(ctx, "curl", web.CurlArgs(address, "file")...); err != nil {
			t.Fatal(err)
		}
	}
	sum := record.interrupt(t)
	if len(sum.Labels) != 1 || sum.Labels[0].Label != "curl" || sum.Flows != 2 {
		t.Errorf("%+v", sum)
	}
	syns := 0
	labelled(t, record, sum, func(_ string, _ []byte, p *vector.Packet) {
		if p.Flags == 2 {
			syns++
		}
	})
	if syns != 2 {
		t.Errorf("%d SYNs, want 2", syns)
	}
}

// testRecordCgroup runs a program in a cgroup of its own.
func testRecordCgroup(t *testing.T, s *suite) {
	near, far := pair(t, false)
	ctx := testContext(t)
	web, err := far.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var stat unix.Statfs_t
		if unix.Statfs(dir, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			root = dir
		}
	}
	if root == "" {
		t.Skip("SKIPPED: no cgroup v2 tree")
	}
	slice := filepath.Join(root, fmt.Sprintf("dpclass-test-%d.slice", os.Getpid()))
	unit := filepath.Join(slice, `fetch\x2dfile.service`)
	if err := os.MkdirAll(unit, 0o755); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	t.Cleanup(func() { os.Remove(unit); os.Remove(slice) })
	fetch := func() {
		t.Helper()
		args := append([]string{"-c", `echo $$ > "$0/cgroup.procs" && exec curl "$@"`, unit}, web.CurlArgs("10.0.1.2", "file")...)
		if _, err := near.Run(ctx, "sh", args...); err != nil {
			t.Fatal(err)
		}
	}
	record := s.startRecord(t, near, "--by", "cgroup")
	fetch()
	if sum := record.interrupt(t); len(sum.Labels) != 1 || sum.Labels[0].Label != "fetch-file.service" {
		t.Errorf("%+v, want fetch-file.service", sum)
	}
	// The map may name the path too.
	record = s.startRecord(t, near, "--by", "cgroup", "--map", write(t, "map.yaml", "/dpclass-test-*/*: mine\n"))
	fetch()
	if sum := record.interrupt(t); len(sum.Labels) != 1 || sum.Labels[0].Label != "mine" {
		t.Errorf("%+v, want mine", sum)
	}
}

// testRecordName records by server names.
func testRecordName(t *testing.T, s *suite) {
	near, far := pair(t, false)
	ctx := testContext(t)
	web, err := far.NGINX(ctx, lab.Web{Port: 443, TLS: true, Name: "www.example.org", Names: []string{"call.meet.example"}, Files: map[string]int64{"file": 50_000}})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := far.NGINX(ctx, lab.Web{Port: 8080, Name: "plain.example", Files: map[string]int64{"file": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	ssh, err := far.SSHD(ctx, 22, nil)
	if err != nil {
		t.Fatal(err)
	}
	record := s.startRecord(t, near, "--by", "name", "--map", write(t, "map.yaml", "*.meet.example: voip\nplain.example: -\n"))
	for _, address := range []string{"10.0.1.2", "fd00:1::2"} {
		for _, args := range [][]string{
			web.CurlArgsAs("www.example.org", address, "file"), web.CurlArgsAs("call.meet.example", address, "file"), plain.CurlArgs(address, "file"),
		} {
			if _, err := near.Run(ctx, "curl", args...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := near.SSH(ctx, ssh, address, "true"); err != nil {
			t.Fatal(err)
		}
	}
	hello := output(ctx, t, near, "openssl", "s_client", "-connect", "10.0.1.2:443", "-servername", "www.example.org", "-CAfile", web.CA, "-verify_return_error")
	if !strings.Contains(hello, "Verify return code: 0") {
		t.Fatalf("openssl: %s", hello)
	}
	sum := record.interrupt(t)
	got := map[string]int{}
	for _, l := range sum.Labels {
		got[l.Label] = l.Flows
	}
	if want := map[string]int{"www.example.org": 3, "voip": 2, "unknown": 2}; fmt.Sprint(got) != fmt.Sprint(want) || sum.LeftOut != 2 {
		t.Errorf("%v, %d left out, want %v and 2", got, sum.LeftOut, want)
	}
	// The packets before the name are there too.
	syns := map[string]int{}
	labelled(t, record, sum, func(label string, _ []byte, p *vector.Packet) {
		if p.Flags == 2 {
			syns[label]++
		}
	})
	if fmt.Sprint(syns) != fmt.Sprint(got) {
		t.Errorf("SYNs %v, want %v", syns, got)
	}
}

// output runs a program with an empty standard input and returns its output.
func output(ctx context.Context, t *testing.T, h *lab.Host, name string, args ...string) string {
	t.Helper()
	out, err := h.Run(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// testRecordLimits checks what ends a recording, and what is kept of a flow.
func testRecordLimits(t *testing.T, s *suite) {
	near, far := pair(t, true)
	ctx := testContext(t)
	web, err := far.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	fetch := func() {
		t.Helper()
		if _, err := near.Run(ctx, "curl", web.CurlArgs("10.0.1.2", "file")...); err != nil {
			t.Fatal(err)
		}
	}
	record := s.startRecord(t, near, "--packets", "10", "--snap", "200")
	fetch()
	sum := record.interrupt(t)
	if sum.Packets != 10 || sum.Beyond == 0 {
		t.Errorf("%d packets, %d beyond, want 10 and more", sum.Packets, sum.Beyond)
	}
	labelled(t, record, sum, func(_ string, data []byte, p *vector.Packet) {
		if len(data) > 200-14 || p.Length < len(data) {
			t.Errorf("%d bytes of %d", len(data), p.Length)
		}
	})

	record = s.startRecord(t, near, "--max-size", "100kB")
	fetch()
	if err := record.Wait(); err != nil {
		t.Fatalf("%v: %s", err, record.Output())
	}
	sum = record.summary(t)
	if sum.Stopped != "size" || sum.Bytes > 100_000 || sum.Bytes < 95_000 {
		t.Errorf("stopped: %q after %d bytes", sum.Stopped, sum.Bytes)
	}
	labelled(t, record, sum, func(string, []byte, *vector.Packet) {})

	record = s.startRecord(t, near, "--duration", "200ms")
	if err := record.Wait(); err != nil {
		t.Fatalf("%v: %s", err, record.Output())
	}
	if sum = record.summary(t); sum.Stopped != "duration" {
		t.Errorf("stopped: %q", sum.Stopped)
	}

	// SIGTERM is as Ctrl-C, and the interface may go.
	record = s.startRecord(t, near)
	fetch()
	if err := record.Process.Stop(); err != nil {
		t.Fatalf("%v: %s", err, record.Output())
	}
	if sum = record.summary(t); sum.Stopped != "interrupted" || sum.Packets == 0 {
		t.Errorf("%+v", sum)
	}
	record = s.startRecord(t, near)
	fetch()
	if _, err := near.Run(ctx, "ip", "link", "del", "eth0"); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, record.Wait()); code != cli.ExitFailed || !strings.Contains(record.Output(), "went down; what was recorded before is complete") {
		t.Errorf("exit %d: %s", code, record.Output())
	}
	sum = record.summary(t)
	labelled(t, record, sum, func(string, []byte, *vector.Packet) {})
}

// testRecordFullDisk records onto a file system of 2 MB. What is there is complete.
func testRecordFullDisk(t *testing.T, s *suite) {
	near, far := pair(t, true)
	ctx := testContext(t)
	web, err := far.NGINX(ctx, lab.Web{Port: 8080, Files: map[string]int64{"file": 4 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	ssh, err := far.SSHD(ctx, 22, nil)
	if err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	record := s.startRecordIn(t, near, filepath.Join(disk, "recorded"), "eth0")
	if _, err := near.SSH(ctx, ssh, "10.0.1.2", "true"); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Run(ctx, "curl", web.CurlArgs("10.0.1.2", "file")...); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, record.Wait()); code != cli.ExitFailed {
		t.Fatalf("exit %d: %s", code, record.Output())
	}
	said := record.Output()
	said = said[max(strings.Index(said, "dpclass: "), 0):] // after how far it is
	checkError(t, said)
	if !strings.Contains(said, "the disk is full; what was written before is complete") {
		t.Errorf("it says: %s", said)
	}
	sum := record.summary(t)
	if sum.Stopped != "disk-full" || len(sum.Labels) != 2 {
		t.Errorf("%+v", sum)
	}
	labelled(t, record, sum, func(string, []byte, *vector.Packet) {})
	data := filepath.Join(t.TempDir(), "dataset")
	s.run(t, near, "dataset", "build", "--manifest", record.dir, "--out", data).want(t, cli.ExitDone, "2 captures")
}

// testRecordSegments: what the kernel sends and receives in large pieces is recorded as it
// is on the wire.
func testRecordSegments(t *testing.T, s *suite) {
	near, far := pair(t, false)
	ctx := testContext(t)
	listener, err := far.Listen(ctx, "[::]:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	record := s.startRecord(t, near)
	sent := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz\n"), 20_000)
	for _, address := range []string{"10.0.1.2:7000", "[fd00:1::2]:7000"} {
		c, err := near.Dial(ctx, "tcp", "", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		if back, err := io.ReadAll(c); err != nil || !bytes.Equal(back, sent) {
			t.Fatalf("%d bytes came back: %v", len(back), err)
		}
		c.Close()
	}
	sum := record.interrupt(t)
	streams := map[string][]byte{} // what each end has sent
	first := map[string]uint32{}
	labelled(t, record, sum, func(_ string, data []byte, p *vector.Packet) {
		if len(data) > 1500 || p.Length != len(data) {
			t.Fatalf("a packet of %d bytes, %d captured", p.Length, len(data))
		}
		if sum := checksumOf(data, p); sum != 0 {
			t.Errorf("packet %v -> %v of %d bytes: wrong checksum (%#x)", p.Src, p.Dst, len(data), sum)
		}
		from := p.Src.String()
		seq := uint32(data[p.L4+4])<<24 | uint32(data[p.L4+5])<<16 | uint32(data[p.L4+6])<<8 | uint32(data[p.L4+7])
		if p.Flags&2 != 0 {
			first[from] = seq + 1
		}
		payload := data[p.Payload:]
		if end := int(seq-first[from]) + len(payload); len(payload) > 0 {
			if streams[from] == nil {
				streams[from] = make([]byte, len(sent))
			}
			copy(streams[from][int(seq-first[from]):end], payload)
		}
	})
	if len(streams) != 4 {
		t.Errorf("%d streams, want 4", len(streams))
	}
	for from, stream := range streams {
		if !bytes.Equal(stream, sent) {
			t.Errorf("what %s sent is not complete", from)
		}
	}
}

// testRecordFragments: later fragments have no ports, and are with the first one.
func testRecordFragments(t *testing.T, s *suite) {
	near, far := pair(t, false)
	record := s.startRecord(t, near)
	for _, address := range []string{"10.0.1.2:7007", "[fd00:1::2]:7007"} {
		echo(t, far, address)
		c, err := near.Dial(testContext(t), "udp", "", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
	}
	sum := record.interrupt(t)
	if len(sum.Labels) != 1 || sum.Labels[0].Label != ourName(t) {
		t.Fatalf("%+v", sum)
	}
	reader, err := capture.Open(filepath.Join(record.dir, sum.Labels[0].Path))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	count := map[vector.Reason]int{}
	for {
		packet, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, reason := vector.Parse(packet.Data, packet.Length)
		count[reason]++
	}
	// Both ways, over IPv4 and IPv6, in two fragments.
	if count[vector.OK] != 4 || count[vector.Fragment] != 4 {
		t.Errorf("%v, want 4 first fragments and 4 later ones", count)
	}
}

// checksumOf adds up what the checksum of a TCP segment covers, with the checksum: 0 if that
// is right.
func checksumOf(data []byte, p *vector.Packet) uint16 {
	covered := slices.Clone(data[p.L4:])
	for _, addr := range []netip.Addr{p.Src.Addr(), p.Dst.Addr()} {
		covered = append(slices.Clone(addr.AsSlice()), covered...)
	}
	total := uint32(p.Proto) + uint32(len(data)-p.L4)
	for i, b := range covered {
		total += uint32(b) << (8 * (1 - i%2))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}

// testRecordRefusals: what cannot be recorded is said before anything is written.
func testRecordRefusals(t *testing.T, s *suite) {
	near, _ := pair(t, false)
	used := t.TempDir()
	if err := os.WriteFile(filepath.Join(used, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, near, "record", "eth0", "--out", used).want(t, cli.ExitFailed, "is not empty", "name another directory")
	if err := os.WriteFile(filepath.Join(used, "manifest.csv"), []byte("path,category,app\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, near, "record", "eth0", "--out", used).want(t, cli.ExitFailed, "manifest.csv is not one of dpclass record")
	s.run(t, near, "record", "no-such", "--out", t.TempDir()).want(t, cli.ExitFailed, `interface "no-such" does not exist`)
	record := s.startRecord(t, near)
	s.run(t, near, "record", "eth0", "--out", record.dir).want(t, cli.ExitFailed, "another dpclass record writes to it")
	if err := record.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = record.Wait()
	// Nothing of a killed one stays in the way.
	s.startRecordIn(t, near, record.dir, "eth0").interrupt(t)

	// Only the owner reads the files: whoever called sudo, if that is how.
	t.Setenv("SUDO_UID", "1234")
	t.Setenv("SUDO_GID", "1235")
	record = s.startRecordIn(t, near, filepath.Join(t.TempDir(), "recorded"), "lo")
	c, err := near.Dial(testContext(t), "udp", "", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	sum := record.interrupt(t)
	for name, mode := range map[string]os.FileMode{"": 0o700, "manifest.csv": 0o600, ourName(t): 0o700, sum.Labels[0].Path: 0o600} {
		info, err := os.Stat(filepath.Join(record.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != mode || stat.Uid != 1234 || stat.Gid != 1235 {
			t.Errorf("%q: %v %d:%d, want %o 1234:1235", name, info.Mode(), stat.Uid, stat.Gid, mode)
		}
	}
	s.run(t, near, "record", "eth0", "--out", t.TempDir(), "--duration", "10ms").want(t, cli.ExitDone, "0 packets of 0 flows")
}
