// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testContext ends long before the time limit of "go test", so that a wait that hangs
// reports what it waits for.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func testRouter(t *testing.T, topology Topology) *Routed {
	t.Helper()
	r, err := ForTest(t).Router(topology)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDoRunsInTheNamespace(t *testing.T) {
	r := testRouter(t, Topology{})
	for host, want := range map[*Host]string{r.Client: "eth0 lo", r.Router: "eth0 eth1 lo"} {
		var names []string
		err := host.Do(func() error {
			interfaces, err := net.Interfaces()
			for _, i := range interfaces {
				// Some kernels add devices for tunnels to every namespace.
				if i.Name == "lo" || strings.HasPrefix(i.Name, "eth") {
					names = append(names, i.Name)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("host %q has devices %q, want %q", host.Name(), got, want)
		}
	}
	out, err := r.Router.Run(testContext(t), "ip", "-o", "addr")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.0.1.1/24", "10.0.2.1/24", "fd00:1::1/64", "fd00:2::1/64"} {
		if !strings.Contains(out, want) {
			t.Errorf("the router lacks address %s: %s", want, out)
		}
	}
}

func TestProcessesSeeTheBPFFileSystem(t *testing.T) {
	r := testRouter(t, Topology{})
	if err := MountBPFFS(); err != nil {
		t.Fatal(err)
	}
	out, err := r.Router.Run(testContext(t), "stat", "--file-system", "--format", "%T", "/sys/fs/bpf")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(out) != "bpf_fs" {
		t.Errorf("/sys/fs/bpf is %q in the namespace, want a bpffs", out)
	}
}

func TestNGINX(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	web, err := r.Server.NGINX(ctx, Web{Port: 443, TLS: true, Files: map[string]int64{"big": 3 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		args := append(web.CurlArgs(addr, "big"), "--write-out", "%{size_download}")
		out, err := r.Client.Run(ctx, "curl", args...)
		if err != nil {
			t.Fatal(err)
		}
		if out != strconv.Itoa(3<<20) {
			t.Errorf("curl from %s got %s bytes", addr, out)
		}
	}
}

func TestNGINXStoresUploads(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	web, err := r.Server.NGINX(ctx, Web{Port: 443, TLS: true, Names: []string{"drive.example"}, Write: true})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.Client.Lab().Dir(), "report.bin")
	if err := WriteFiles(filepath.Dir(file), map[string]int64{"report.bin": 200_000}); err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]string{web.Name: r.ServerAddr4, "drive.example": r.ServerAddr6} {
		for _, step := range []struct {
			want string // HTTP status and size of the answer
			args []string
		}{{"201 0", []string{"--upload-file", file}}, {"200 200000", nil}, {"204 0", []string{"--data", "hello"}}} {
			args := append(web.CurlArgsAs(name, addr, name+".bin"), "--write-out", "%{http_code} %{size_download}")
			out, err := r.Client.Run(ctx, "curl", append(args, step.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			if out != step.want {
				t.Errorf("curl %q %q: HTTP status and size %q, want %q", name, step.args, out, step.want)
			}
		}
	}
}

// optional skips a test whose program make deps installs only if the distribution has it.
func optional(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := FindProgram(program); err != nil {
			t.Skipf("SKIPPED: %v", err)
		}
	}
}

func TestMail(t *testing.T) {
	optional(t, "aiosmtpd")
	r, ctx := testRouter(t, Topology{}), testContext(t)
	for i, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		server, err := r.Server.SMTPD(ctx, addr, 25+i)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Client.SendMail(ctx, server, 20_000); err != nil {
			t.Errorf("%v\nserver: %s", err, server.Output())
		}
	}
}

// The agent is on all addresses, and UDP servers answer from the one that the kernel
// chooses: an added address must not become that one.
func TestSNMP(t *testing.T) {
	optional(t, "snmpd", "snmpbulkwalk")
	r, ctx := testRouter(t, Topology{}), testContext(t)
	if err := r.Server.AddAddrs("eth0", "10.0.2.9/24", "fd00:2::9/64"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Server.SNMPD(ctx, 161); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		local, err := r.Server.Run(ctx, "ip", "route", "get", map[string]string{r.ServerAddr4: r.ClientAddr4, r.ServerAddr6: r.ClientAddr6}[addr])
		if err != nil || !strings.Contains(local, "src "+addr+" ") {
			t.Errorf("the server sends from another address than %s: %s (%v)", addr, local, err)
		}
		out, err := r.Client.SNMPWalk(ctx, addr, 161, "1.3.6.1.2.1.2") // the interfaces
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "eth0") {
			t.Errorf("the agent at %s does not list eth0: %s", addr, out)
		}
	}
}

func TestBitTorrent(t *testing.T) {
	optional(t, "aria2c")
	r, ctx := testRouter(t, Topology{}), testContext(t)
	dump, err := r.Router.Capture(ctx, "eth0", filepath.Join(t.TempDir(), "torrent.pcap"), "tcp")
	if err != nil {
		t.Fatal(err)
	}
	torrent, err := BitTorrent(ctx, r.Client, r.Server, TorrentOptions{SeedAddr: r.ServerAddr4, Port: 6881, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := torrent.Peer.Wait(); err != nil {
		t.Fatalf("%v: %s\nseed: %s", err, torrent.Peer.Output(), torrent.Seed.Output())
	}
	if info, err := os.Stat(torrent.File); err != nil || info.Size() != torrent.Size {
		t.Errorf("the downloaded file: %v %v", info, err)
	}
	if err := dump.Interrupt(); err != nil {
		t.Fatalf("tcpdump: %v: %s", err, dump.Output())
	}
	data, err := os.ReadFile(dump.cmd.Args[slices.Index(dump.cmd.Args, "-w")+1])
	if err != nil {
		t.Fatal(err)
	}
	// The handshake is readable (BEP 3).
	if !bytes.Contains(data, []byte("\x13BitTorrent protocol")) {
		t.Error("the capture has no unencrypted handshake")
	}
}

func TestSSH(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	ssh, err := r.Server.SSHD(ctx, 22, map[string]int64{"report.bin": 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range []string{r.ServerAddr4, r.ServerAddr6} {
		got := filepath.Join(t.TempDir(), "got")
		if err := r.Client.SFTP(ctx, ssh, addr, "get report.bin "+got, "put "+got+" back"+strconv.Itoa(i)); err != nil {
			t.Fatalf("%v\nserver: %s", err, ssh.Output())
		}
		if info, err := os.Stat(filepath.Join(ssh.Files, "back"+strconv.Itoa(i))); err != nil || info.Size() != 1<<20 {
			t.Errorf("the uploaded file: %v %v", info, err)
		}
	}
	out, err := r.Client.SSH(ctx, ssh, r.ServerAddr4, "echo $SSH_CONNECTION")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, r.ClientAddr4+" ") || !strings.Contains(out, r.ServerAddr4+" 22") {
		t.Errorf("SSH_CONNECTION is %q", out)
	}
}

func TestIperf(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	if _, err := r.Server.IperfServer(ctx, 5201); err != nil {
		t.Fatal(err)
	}
	for _, test := range []Iperf{
		{Server: r.ServerAddr4}, {Server: r.ServerAddr6, Reverse: true},
		{Server: r.ServerAddr4, UDP: true, Rate: "5M", Length: 1000},
		{Server: r.ServerAddr6, UDP: true, Rate: "5M", Length: 1000, Reverse: true},
	} {
		test.Port, test.Time = 5201, time.Second
		result, err := r.Client.Iperf(ctx, test)
		if err != nil {
			t.Fatal(err)
		}
		if result.ReceivedBits == 0 || result.SentBits == 0 || result.Received == 0 {
			t.Errorf("%+v: %+v", test, result)
		}
		if test.UDP && (result.Packets == 0 || result.Received > result.SentBytes) {
			t.Errorf("%+v: %+v", test, result)
		}
	}
}

func TestCall(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	for _, ends := range [][2]string{{"10.0.1.2:16384", "10.0.2.2:16386"}, {"[fd00:1::2]:16384", "[fd00:2::2]:16386"}} {
		call, err := StartCall(ctx, r.Client, ends[0], r.Server, ends[1])
		if err != nil {
			t.Fatal(err)
		}
		err = Until(ctx, "20 packets each way", func() (bool, error) {
			s := call.Stats()
			return s.ReceivedByA >= 20 && s.ReceivedByB >= 20, nil
		})
		if err != nil {
			t.Error(err)
		}
		if stats, err := call.Stop(); err != nil {
			t.Errorf("%+v: %v", stats, err)
		}
	}
}

func TestOpenVPN(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("SKIPPED, no tun devices: %v", err)
	}
	tunnel, err := OpenVPN(ctx, r.Client, r.Server, r.ServerAddr4, 1194)
	if err != nil {
		t.Fatal(err)
	}
	web, err := r.Server.NGINX(ctx, Web{Port: 80, Files: map[string]int64{"small": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Client.Run(ctx, "curl", web.CurlArgs(tunnel.ServerAddr, "small")...); err != nil {
		t.Error(err)
	}
}

func TestCaptureAndReplay(t *testing.T) {
	r, ctx := testRouter(t, Topology{NoOffload: true}), testContext(t)
	first, again := filepath.Join(t.TempDir(), "first.pcap"), filepath.Join(t.TempDir(), "again.pcap")
	dump, err := r.Router.Capture(ctx, "eth0", first, "udp")
	if err != nil {
		t.Fatal(err)
	}
	call, err := StartCall(ctx, r.Client, "10.0.1.2:16384", r.Server, "10.0.2.2:16386")
	if err != nil {
		t.Fatal(err)
	}
	err = Until(ctx, "some packets", func() (bool, error) { return call.Stats().ReceivedByA >= 10, nil })
	if err != nil {
		t.Fatal(err)
	}
	stats, err := call.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if err := dump.Interrupt(); err != nil {
		t.Fatalf("tcpdump: %v: %s", err, dump.Output())
	}
	packets, err := r.Router.Packets(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if want := stats.SentByA + stats.SentByB; uint64(len(packets)) != want {
		t.Errorf("capture has %d packets, want the %d that were sent", len(packets), want)
	}

	dump, err = r.Router.Capture(ctx, "eth0", again, "udp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Client.Replay(ctx, Replay{Iface: "eth0", File: first, PPS: 1000}); err != nil {
		t.Fatal(err)
	}
	if err := dump.Interrupt(); err != nil {
		t.Fatalf("tcpdump: %v: %s", err, dump.Output())
	}
	replayed, err := r.Router.Packets(ctx, again, "src", r.ClientAddr4)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := r.Router.Packets(ctx, first, "src", r.ClientAddr4)
	if err != nil {
		t.Fatal(err)
	}
	if len(replayed) < len(sent) || len(sent) == 0 {
		t.Errorf("%d packets replayed, %d captured", len(replayed), len(sent))
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	l, err := New("close")
	if err != nil {
		t.Skipf("SKIPPED, needs root: %v", err)
	}
	h, err := l.Host("one")
	if err != nil {
		t.Fatal(err)
	}
	// One process that ignores SIGTERM, and a child of it that leaves its process group.
	p, err := h.Start(t.Context(), "sh", "-c", "trap '' TERM; setsid sh -c 'echo child $$ started; exec sleep 1000' & while :; do sleep 1000; done")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitOutput(testContext(t), "started"); err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.Fields(p.Output())[1])
	if err != nil {
		t.Fatal(err)
	}
	if !runs(child) || !runs(p.Pid()) {
		t.Fatalf("before Close: child runs: %v, parent runs: %v", runs(child), runs(p.Pid()))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	for _, path := range []string{filepath.Join(netnsDir, h.Netns()), l.Dir()} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%q is left", path)
		}
	}
	// A killed process may take a moment to end.
	err = Until(testContext(t), "the processes to end", func() (bool, error) { return !runs(child) && !runs(p.Pid()), nil })
	if err != nil {
		t.Error(err)
	}
	if _, err := h.Start(t.Context(), "true"); err == nil {
		t.Error("a closed host still starts programs")
	}
}

// runs reports whether a process exists and is not a zombie.
func runs(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestCleanRemovesWhatAKilledRunLeft(t *testing.T) {
	live := ForTest(t)
	host, err := live.Host("live")
	if err != nil {
		t.Fatal(err)
	}
	// A pid that no process has any more.
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	stale := prefix + strconv.Itoa(gone.Process.Pid) + "-1-stale"
	if err := create(stale); err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command("nsenter", "--net="+filepath.Join(netnsDir, stale), "sleep", "1000")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	var before, inside unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsDir, stale), &before); err != nil {
		t.Fatal(err)
	}
	err = Until(testContext(t), "nsenter", func() (bool, error) {
		err := unix.Stat("/proc/"+strconv.Itoa(orphan.Process.Pid)+"/ns/net", &inside)
		return inside.Ino == before.Ino, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Clean(); err != nil {
		t.Fatal(err)
	}
	if err := orphan.Wait(); err == nil {
		t.Error("the orphan was not killed")
	}
	if _, err := os.Stat(filepath.Join(netnsDir, stale)); err == nil {
		t.Error("the stale namespace is left")
	}
	if _, err := os.Stat(filepath.Join(netnsDir, host.Netns())); err != nil {
		t.Errorf("the live namespace is gone: %v", err)
	}
}

func TestErrorsNameTheirCause(t *testing.T) {
	r, ctx := testRouter(t, Topology{}), testContext(t)
	for want, err := range map[string]error{
		`program "no-such-program" is not installed`: second(r.Client.Run(ctx, "no-such-program")),
		`exit status 3: broken`:                      second(r.Client.Run(ctx, "sh", "-c", "echo broken >&2; exit 3")),
		`device "eth9"`:                              second(r.Client.Link("eth9")),
		`10.0.9.0/24`:                                r.Client.Route("10.0.9.0/24", "10.0.77.1"),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := r.Client.WaitTCP(short, nil, 4444); err == nil {
		t.Error("WaitTCP found a port on which nothing listens")
	}
}

func second[T any](_ T, err error) error { return err }
