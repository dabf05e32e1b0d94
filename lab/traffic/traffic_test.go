// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/lab"
)

// childDir makes the test binary a lab that its parent kills.
const childDir = "DPLAB_TRAFFIC_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		_, err := Run(context.Background(), Options{Out: dir, Quick: true, Programs: []string{"sftp"}})
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, needs root for network namespaces")
	}
}

// leftovers returns what a lab of a process has left on this machine: namespaces,
// directories, and processes whose command line names them.
func leftovers(t *testing.T, pid string) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{"/run/netns/dpclab-" + pid + "-*", filepath.Join(os.TempDir(), "dpclab-"+pid+"-*")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	return append(left, processes(t, pid)...)
}

// processes returns the command lines that name the directory of a process's lab.
func processes(t *testing.T, pid string) []string {
	t.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file) // the process may be gone
		if err == nil && bytes.Contains(line, []byte("dpclab-"+pid+"-")) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// begins says how the first payload packet of each of a program's flows begins. Programs
// whose flows are encrypted from the first byte are not in it.
var begins = map[string][]string{
	"curl": {"\x16\x03"}, "sftp": {"SSH-"}, "ssh": {"SSH-"}, "curl-mail": {"\x16\x03", "220 "}, "xmpp": {"<?xml", "<stream:stream"}, "mqtt": {"\x10", "\x16\x03"},
	"ffmpeg-hls": {"\x16\x03"},
}

// checkCapture reads a capture: its packets must fit a wire and have right checksums, and
// its flows must be of the program.
func checkCapture(t *testing.T, dir string, c *Capture) {
	t.Helper()
	reader, err := capture.Open(filepath.Join(dir, c.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker := dataset.NewWalker(reader)
	bad := 0
	for {
		step, err := walker.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(step.Data) > 1500 || step.Packet.Length > 1500 {
			t.Fatalf("%s: a packet of %d bytes", c.Path, step.Packet.Length)
		}
		if !rightChecksum(step.Data[:step.Packet.Length]) {
			bad++
		}
		if want := begins[c.Program]; want != nil && step.Sampled && step.Flow.Payloads == 1 {
			payload := step.Data[step.Packet.Payload:]
			if !slices.ContainsFunc(want, func(s string) bool { return bytes.HasPrefix(payload, []byte(s)) }) {
				t.Errorf("%s: a flow of %s begins with %q, want %q", c.Path, c.Program, payload[:min(20, len(payload))], want)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d packets with wrong checksums", c.Path, bad)
	}
}

// rightChecksum checks the checksum of TCP or UDP in an IP packet that is no fragment.
func rightChecksum(ip []byte) bool {
	var pseudo, transport []byte
	var proto byte
	if ip[0]>>4 == 4 {
		if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 { // a fragment: OpenVPN's packets around QUIC's largest ones
			return true
		}
		proto, transport = ip[9], ip[int(ip[0]&15)*4:]
		pseudo = slices.Clone(ip[12:20])
	} else {
		proto, transport = ip[6], ip[40:]
		pseudo = slices.Clone(ip[8:40])
	}
	if proto != 6 && proto != 17 { // extension headers
		return true
	}
	if proto == 17 && transport[6] == 0 && transport[7] == 0 {
		return ip[0]>>4 == 4 // none
	}
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(proto))
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(transport)))
	sum := uint32(0)
	for _, part := range [][]byte{pseudo, transport} {
		for i := 0; i < len(part); i += 2 {
			if i+1 < len(part) {
				sum += uint32(part[i])<<8 | uint32(part[i+1])
			} else {
				sum += uint32(part[i]) << 8
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

// TestQuick makes traffic of every category whose programs are installed.
func TestQuick(t *testing.T) {
	needRoot(t)
	out := filepath.Join(t.TempDir(), "traffic")
	result, err := Run(t.Context(), Options{Out: out, Quick: true, Seed: 7, Log: func(e Event) {
		if e.Again {
			t.Logf("!!! AGAIN, the machine is busy: round %s: %v", e.Round, e.Err)
		} else if e.Err != nil && !e.Skipped {
			t.Errorf("round %s: %v", e.Round, e.Err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, pidText(os.Getpid())); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	flows := map[string]int{}
	for _, c := range result.Captures {
		flows[c.Category] += c.Flows
		checkCapture(t, out, c)
	}
	want := map[string][]error{}
	for _, p := range Programs() {
		for _, j := range []job{{program: p}, {program: p, tunnel: tunnels[0]}} {
			want[j.category()] = append(want[j.category()], p.Missing())
		}
	}
	for _, tunnel := range tunnels {
		want[tunnelCategory] = append(want[tunnelCategory], missing(tunnel.needs))
	}
	inTunnels := !slices.ContainsFunc(want[tunnelCategory], func(err error) bool { return err == nil })
	for category, absent := range want {
		switch {
		case !slices.Contains(absent, nil), inTunnels && strings.HasPrefix(category, "vpn-"):
			t.Logf("!!! SKIPPED: %s: %v; %s", category, errors.Join(absent...), strings.Join(fault.Advice(errors.Join(absent...)), "; "))
		case flows[category] == 0:
			t.Errorf("no flows of category %s", category)
		}
	}

	t.Run("nDPI", func(t *testing.T) { checkNDPI(t, out, result.Captures) })

	// dpclass dataset build takes the directory as it is.
	captures, err := dataset.ReadManifest(filepath.Join(out, "manifest.csv"), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(captures) != len(result.Captures) {
		t.Errorf("the manifest has %d rows, want %d", len(captures), len(result.Captures))
	}
	meta, err := dataset.Build(t.Context(), filepath.Join(t.TempDir(), "dataset"), captures, dataset.BuildOptions{PerFlow: dataset.PerFlow})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range meta.Captures {
		if written := result.Captures[i]; c.Flows != written.Flows && c.Path == written.Path {
			t.Errorf("%s: the dataset has %d flows, the manifest %d", c.Path, c.Flows, written.Flows)
		}
	}
	if slices.ContainsFunc(meta.Categories, func(c string) bool { return !slices.Contains(flow.Categories, c) && c != "other" }) {
		t.Errorf("categories %q, want only those that dpclass knows", meta.Categories)
	}
}

func pidText(pid int) string { return strconv.Itoa(pid) }

// TestKilled kills a lab in the middle of its rounds. Its programs must end at once, and
// the next lab removes the rest.
func TestKilled(t *testing.T) {
	needRoot(t)
	sftp := Programs()[slices.IndexFunc(Programs(), func(p *Program) bool { return p.Name == "sftp" })]
	if err := sftp.Missing(); err != nil {
		t.Skipf("SKIPPED: %v; %s", err, strings.Join(fault.Advice(err), "; "))
	}
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+filepath.Join(t.TempDir(), "traffic"))
	var output bytes.Buffer
	child.Stderr = &output
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := pidText(child.Process.Pid)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Until(ctx, "a client", func() (bool, error) {
		return slices.ContainsFunc(processes(t, pid), func(line string) bool { return strings.HasPrefix(line, "sftp ") }), nil
	})
	if err != nil {
		t.Errorf("%v: %s", err, output.String())
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	if err := lab.Until(ctx, "the programs to end", func() (bool, error) { return len(processes(t, pid)) == 0, nil }); err != nil {
		t.Errorf("%v: %q", err, processes(t, pid))
	}
	if len(leftovers(t, pid)) == 0 {
		t.Error("a killed lab has no namespaces: the test has killed it too late")
	}
	if err := lab.Clean(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, pid); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestInterrupted ends a lab by its context. It must leave nothing but a manifest.
func TestInterrupted(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := filepath.Join(t.TempDir(), "traffic")
	_, err := Run(ctx, Options{Out: out, Quick: true, Programs: []string{"rtp"}, Ready: func(router *lab.Host) error {
		time.AfterFunc(time.Second, cancel)
		_, err := router.Link("eth1")
		return err
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if left := leftovers(t, pidText(os.Getpid())); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	rows, err := os.ReadFile(filepath.Join(out, "manifest.csv"))
	if err != nil || string(rows) != strings.Join(columns, ",")+"\n" {
		t.Errorf("manifest %q, %v; want the columns alone", rows, err)
	}
}

func TestPrograms(t *testing.T) {
	names, quick := map[string]bool{}, map[string]bool{}
	for _, p := range Programs() {
		if names[p.Name] {
			t.Errorf("two programs are called %q", p.Name)
		}
		names[p.Name] = true
		quick[p.Category] = quick[p.Category] || p.Quick
		if !slices.Contains(flow.Categories, p.Category) || p.App == "" || p.Start == nil {
			t.Errorf("program %q: category %q, app %q", p.Name, p.Category, p.App)
		}
		for _, need := range p.Needs {
			if need.File == "" || need.Package == "" {
				t.Errorf("program %q: a need without a file or package: %+v", p.Name, need)
			}
		}
	}
	for category, ok := range quick {
		if !ok {
			t.Errorf("category %q has no program for a quick run", category)
		}
	}
	for _, category := range flow.Categories {
		if !slices.Contains(Categories(), category) {
			t.Errorf("the lab makes no %q", category)
		}
	}
}

func TestMissing(t *testing.T) {
	p := &Program{Name: "p", Needs: []Need{{"sh", "dash"}, {"no-such-program", "no-such-package"}, {"/no/such/file", "other-package"}}}
	err := p.Missing()
	if err == nil || err.Error() != "p: no-such-program, /no/such/file: not installed" {
		t.Errorf("got %v", err)
	}
	if advice := fault.Advice(err); !slices.Equal(advice, []string{"apt-get install no-such-package other-package"}) {
		t.Errorf("advice %q", advice)
	}
	p.Needs = p.Needs[:1]
	if err := p.Missing(); err != nil {
		t.Error(err)
	}
}

func TestRunRefuses(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"category":  {Options{Out: t.TempDir(), Classes: []string{"telepathy"}}, `no program of the lab makes "telepathy"`},
		"tunnel":    {Options{Out: t.TempDir(), Programs: []string{"rtp"}, Tunnels: []string{"telepathy"}}, `the lab has no tunnel "telepathy"`},
		"program":   {Options{Out: t.TempDir(), Programs: []string{"telepathy"}}, `the lab has no program "telepathy"`},
		"directory": {Options{Out: full, Programs: []string{"rtp"}}, "is not empty"},
	} {
		if _, err := Run(t.Context(), test.options); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// TestPass checks what a run with a time does next.
func TestPass(t *testing.T) {
	web := &Program{Name: "curl", Category: "web"}
	call := &Program{Name: "call", Category: "voip", Needs: []Need{{"Xvfb", "xvfb"}}}
	chat := &Program{Name: "irc", Category: "chat"}
	packets := &tunnel{name: "packets"}
	streams := &tunnel{name: "streams", streams: []string{"curl"}}
	have := func(program, category string, flows int) *Capture {
		return &Capture{Program: program, Category: category, Flows: flows}
	}
	for name, test := range map[string]struct {
		captures []*Capture
		pass     int
		want     []string // sorted
		scarce   []string
	}{
		"first": {nil, 0, []string{"call-000", "call-in-packets-000", "curl-000", "curl-in-packets-000", "irc-000", "irc-in-packets-000"}, nil},
		"category": {[]*Capture{have("curl", "web", 500), have("call", "voip", 199), have("call", "vpn-voip", 900), have("irc", "chat", 200), have("irc", "vpn-chat", 200)}, 1,
			[]string{"call-001"}, nil},
		"program": {[]*Capture{have("curl", "web", 19), have("other", "web", 300), have("call", "voip", 500), have("call", "vpn-voip", 900), have("irc", "chat", 200),
			have("irc", "vpn-chat", 200)}, 1, []string{"curl-001"}, nil},
		"tunnel": {[]*Capture{have("curl", "web", 500), have("call", "voip", 500), have("call", "vpn-voip", 900), have("irc", "chat", 200), have("irc", "vpn-chat", 200),
			have("packets", "vpn-tunnel", 30)}, 2, []string{"call-in-packets-002", "curl-in-packets-002", "irc-in-packets-002"}, nil},
		"stream": {[]*Capture{have("curl", "web", 500), have("call", "voip", 500), have("call", "vpn-voip", 900), have("irc", "chat", 200), have("irc", "vpn-chat", 200),
			have("packets", "vpn-tunnel", 300)}, 1, []string{"curl-in-streams-001"}, nil},
		"enough": {[]*Capture{have("curl", "web", 500), have("call", "voip", 500), have("call", "vpn-voip", 900), have("irc", "chat", 200), have("irc", "vpn-chat", 200),
			have("packets", "vpn-tunnel", 300), have("streams", "vpn-tunnel", 30)}, 2,
			[]string{"call-002", "call-in-packets-002", "curl-002", "curl-in-packets-002", "irc-002", "irc-in-packets-002"}, nil},
		"scarce": {[]*Capture{have("curl", "web", 500), have("call", "voip", 9), have("call", "vpn-voip", 9), have("irc", "chat", 200), have("irc", "vpn-chat", 200)}, 1,
			[]string{"call-001", "call-in-packets-001"}, []string{"call-001", "call-in-packets-001"}},
	} {
		w := &work{options: Options{Seed: 1}, result: Result{Captures: test.captures}}
		var ids, scarce []string
		for _, j := range w.pass([]*Program{web, call, chat}, []*tunnel{packets, streams}, test.pass) {
			ids = append(ids, j.id())
			if j.scarce {
				scarce = append(scarce, j.id())
			}
		}
		slices.Sort(ids)
		slices.Sort(scarce)
		if !slices.Equal(ids, test.want) || !slices.Equal(scarce, test.scarce) {
			t.Errorf("%s: rounds %q, of them scarce %q; want %q and %q", name, ids, scarce, test.want, test.scarce)
		}
	}
}

func TestSpread(t *testing.T) {
	heavy, light := &Program{Needs: []Need{{"Xvfb", "xvfb"}}}, &Program{}
	for heavies := range 9 {
		var jobs []job
		for n := range 8 {
			jobs = append(jobs, job{program: map[bool]*Program{true: heavy, false: light}[n < heavies], number: n})
		}
		seen, sum := 0, 0
		for n, j := range spread(jobs) {
			sum += j.number
			if j.program == heavy {
				seen++
			}
			if want := (n + 1) * heavies / 8; seen != want {
				t.Errorf("%d of 8 are heavy, %d of the first %d, want %d", heavies, seen, n+1, want)
			}
		}
		if sum != 28 {
			t.Errorf("%d of 8 are heavy: some are lost", heavies)
		}
	}
}

func TestBusy(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("round: %w", errLost): true,
		errors.Join(errors.New("ssh-keygen: exit status 143"), context.DeadlineExceeded): true,
		errNothing:                  true,
		errors.New("exit status 1"): false,
		context.Canceled:            false,
	} {
		if got := busy(err); got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
}

// TestMissingPackages: a quick run needs no more than a whole one.
func TestMissingPackages(t *testing.T) {
	t.Cleanup(func(before []*tunnel) func() { return func() { tunnels = before } }(tunnels))
	tunnels = append(slices.Clone(tunnels), &tunnel{name: "quick", needs: []Need{{"no-such-program", "package-a"}}},
		&tunnel{name: "slow", slow: true, needs: []Need{{"no-such-program", "package-b"}}})
	all, quick := MissingPackages(false), MissingPackages(true)
	if !slices.Contains(all, "package-a") || !slices.Contains(all, "package-b") || !slices.Contains(quick, "package-a") || slices.Contains(quick, "package-b") {
		t.Errorf("missing %q, for a quick run %q", all, quick)
	}
	for _, name := range quick {
		if !slices.Contains(all, name) {
			t.Errorf("only a quick run needs %q", name)
		}
	}
}

func TestDraw(t *testing.T) {
	a, b, other := newDraw(1, "curl-000"), newDraw(1, "curl-000"), newDraw(1, "curl", "000")
	if a.newStack() != b.newStack() {
		t.Error("the same seed and words give different stacks")
	}
	if a.newStack() == other.newStack() {
		t.Error("different words give the same stack")
	}
	ports := map[int]bool{}
	for range 20_000 {
		s := a.newStack()
		if !s.addr4.Is4() || s.addr4.IsMulticast() || s.addr4.IsLoopback() || s.addr4.IsLinkLocalUnicast() || linkPrefix.Contains(s.addr4) || s.addr4.IsUnspecified() {
			t.Fatalf("address %s", s.addr4)
		}
		if !netip.MustParsePrefix("2000::/3").Contains(s.addr6) && !netip.MustParsePrefix("fd00::/8").Contains(s.addr6) {
			t.Fatalf("address %s", s.addr6)
		}
		port := a.port()
		ports[port] = true
		if s.ttl < 32 || s.ttl > 255 || s.firstPort <= 32_000 || s.lastPort <= s.firstPort || port > s.firstPort {
			t.Fatalf("stack %+v, port %d", s, port)
		}
		if size := a.Size(10, 1000); size < 10 || size > 1000 {
			t.Fatalf("size %d", size)
		}
	}
	if !ports[443] || len(ports) < 1000 {
		t.Errorf("%d different ports", len(ports))
	}
	if text := a.Text(100); len(text) < 100 || len(text) > 112 {
		t.Errorf("%d bytes of text", len(text))
	}
	if a.Text(0) == "" {
		t.Error("no text")
	}
}

// TestDocumentation compares the program that docs/lab.md shows with its file.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("snmp.go")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, ok := strings.Cut(string(page), "```go\n")
	if !ok {
		t.Fatal("docs/lab.md shows no program")
	}
	shown, _, _ = strings.Cut(shown, "```")
	if _, code, _ := strings.Cut(string(file), ")\n\n"); code != shown {
		t.Error("docs/lab.md shows another text than lab/traffic/snmp.go")
	}
}

// TestOrphan kills unshare after its fork and before the shell runs, as if it had not yet asked to have its child
// killed with it. The shell must not start the program.
func TestOrphan(t *testing.T) {
	needRoot(t)
	for _, killed := range []bool{false, true} {
		l := lab.ForTest(t)
		host, err := l.Host("host")
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{Host: host, Dir: filepath.Join(l.Dir(), "host"), Name: "host"}
		for _, file := range []string{"hosts", "resolv.conf"} {
			if _, err := n.Write(file, ""); err != nil {
				t.Fatal(err)
			}
		}
		forked, started := filepath.Join(n.Dir, "forked"), filepath.Join(n.Dir, "started")
		cmd, err := n.Command(t.Context(), "sh", "-c", "touch "+started+"; sleep 1000")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = slices.DeleteFunc(cmd.Args, func(arg string) bool { return arg == "--kill-child" })
		script := slices.Index(cmd.Args, private)
		cmd.Args[script] = "touch " + forked + "; sleep 1; " + private + "\n"
		p, err := n.StartCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		exists := func(file string) func() (bool, error) {
			return func() (bool, error) { _, err := os.Stat(file); return err == nil, nil }
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := lab.Until(ctx, "the fork", exists(forked)); err != nil {
			t.Fatal(err)
		}
		if !killed {
			if err := lab.Until(ctx, "the program", exists(started)); err != nil {
				t.Error(err)
			}
			_ = p.Stop() // killed
			continue
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := lab.Until(ctx, "the shell to end", func() (bool, error) { return len(processes(t, pidText(os.Getpid()))) == 0, nil }); err != nil {
			t.Error(err)
		}
		if found, _ := exists(started)(); found {
			t.Error("the program has run without unshare")
		}
	}
}
