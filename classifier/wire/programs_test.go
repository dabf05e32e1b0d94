// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/dpclass/dpclass/classifier/wire"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/vector"
	"github.com/dpclass/dpclass/lab"
)

// sampled is the part of a packet that the kernel copies, in bytes from the IP header on.
const sampled = 1500

// readCapture gives all packets of a capture to wire and returns the evidence of each
// flow. A capture that tcpdump is still writing may end inside a packet.
func readCapture(t *testing.T, file string) map[flow.Key]flow.Evidence {
	t.Helper()
	flows := map[flow.Key]*wire.Flow{}
	evidence := map[flow.Key]flow.Evidence{}
	r, err := capture.Open(file)
	if err != nil {
		return evidence // no header yet
	}
	defer r.Close()
	for {
		p, err := r.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		data := p.Data[:min(len(p.Data), sampled)]
		h, reason := vector.Parse(data, p.Length)
		if reason != vector.OK || !h.Sampled() {
			continue
		}
		key, fromA := flow.MakeKey(flow.Proto(h.Proto), h.Src, h.Dst, 0)
		packet := wire.Packet{
			Proto: key.Proto, FromA: fromA, SrcPort: h.Src.Port(), DstPort: h.Dst.Port(),
			Payload: data[h.Payload : h.Payload+h.Captured], Length: h.Length - h.Payload,
		}
		if key.Proto == flow.TCP {
			packet.Seq = binary.BigEndian.Uint32(data[h.L4+4:])
		}
		if flows[key] == nil {
			flows[key] = &wire.Flow{}
		}
		flows[key].Add(&packet)
	}
	for key, f := range flows {
		evidence[key] = f.Evidence()
		f.Release()
	}
	return evidence
}

// program is one way to make a flow, and what its evidence must be.
type program struct {
	name     string // the server name that it asks for, as well
	protocol flow.Protocol
	ja4      string // beginning
	alpn     string
	needs    string // command; "": none
	tshark   bool   // the version of Debian 12 can read its hello
	run      func(ctx context.Context, name string) error
}

// selfSigned returns a certificate. The clients do not check it.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// serveSMTP answers as a mail server with STARTTLS does.
func serveSMTP(listener net.Listener, config *tls.Config) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buffer := make([]byte, 512)
			for _, answer := range []string{"220 mail ESMTP\r\n", "250-mail\r\n250 STARTTLS\r\n", "220 go ahead\r\n"} {
				if _, err := io.WriteString(conn, answer); err != nil {
					return
				}
				if strings.HasSuffix(answer, "ahead\r\n") {
					_ = tls.Server(conn, config).Handshake()
					return
				}
				if _, err := conn.Read(buffer); err != nil {
					return
				}
			}
		}()
	}
}

// Real programs talk to real servers, IPv4 and IPv6. What wire reads of their packets is
// compared with what the programs were told to do, and with what tshark reads of the same
// capture.
func TestPrograms(t *testing.T) {
	l := lab.ForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// Without offload the capture shows what is on a wire: segments.
	r, err := l.Router(lab.Topology{NoOffload: true})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(l.Dir(), "programs.pcap")
	startServers(ctx, t, r)
	tcpdump, err := r.Router.Capture(ctx, "eth0", file, "tcp or udp")
	if err != nil {
		t.Fatal(err)
	}

	ran := map[string]program{}
	for _, p := range programs(r) {
		if p.needs != "" {
			if _, err := lab.FindProgram(p.needs); err != nil {
				t.Logf("SKIPPED: the hello of %s: %s is not installed", p.name, p.needs)
				continue
			}
		}
		if err := p.run(ctx, p.name); err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		// A browser takes its time, and tcpdump may be a moment late.
		wait, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := lab.Until(wait, "a flow to "+p.name, func() (bool, error) {
			for _, e := range readCapture(t, file) {
				if e.Name == p.name && (e.JA4 != "" || p.ja4 == "") {
					return true, nil
				}
			}
			return false, nil
		})
		cancel()
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		ran[p.name] = p
	}
	if err := tcpdump.Interrupt(); err != nil {
		t.Fatal(err)
	}

	evidence := readCapture(t, file)
	for key, e := range evidence {
		p, ok := ran[e.Name]
		if !ok {
			if e.Name != "" {
				t.Logf("a program's own traffic: %v %+v", key, e)
			}
			continue
		}
		if e.Protocol != p.protocol || e.ALPN != p.alpn || !strings.HasPrefix(e.JA4, p.ja4) {
			t.Errorf("%s, %v: %+v, want %v, ALPN %q, JA4 %s...", p.name, key, e, p.protocol, p.alpn, p.ja4)
		}
	}
	compareWithTshark(ctx, t, file, evidence, ran)
}

// startServers starts NGINX for HTTP and TLS, and servers for mail and QUIC.
func startServers(ctx context.Context, t *testing.T, r *lab.Routed) {
	t.Helper()
	for _, web := range []lab.Web{{Port: 443, TLS: true}, {Port: 80}} {
		web.Files = map[string]int64{"index.html": 100}
		if _, err := r.Server.NGINX(ctx, web); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	mail, err := r.Server.Listen(ctx, "[::]:587")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mail.Close() })
	go serveSMTP(mail, &tls.Config{Certificates: []tls.Certificate{cert}})
	conn, err := r.Server.ListenUDP(ctx, "[::]:443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	listener, err := quic.Listen(conn, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h3"}},
		&quic.Config{Versions: []quic.Version{quic.Version1, quic.Version2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
}

// programs returns the programs. Names tell their flows apart.
func programs(r *lab.Routed) []program {
	client := r.Client
	run := func(ctx context.Context, args ...string) error {
		_, err := client.Run(ctx, args[0], args[1:]...)
		return err
	}
	curl := func(scheme string, port int, addr string) func(context.Context, string) error {
		return func(ctx context.Context, name string) error {
			return run(ctx, "curl", "--silent", "--show-error", "--insecure", "--output", "/dev/null", "--resolve",
				fmt.Sprintf("%s:%d:%s", name, port, addr), fmt.Sprintf("%s://%s:%d/index.html", scheme, name, port))
		}
	}
	openssl := func(port int, args ...string) func(context.Context, string) error {
		return func(ctx context.Context, name string) error {
			// It fails where the server refuses or closes. All that counts is its hello.
			_ = run(ctx, append([]string{
				"openssl", "s_client", "-brief", "-connect", fmt.Sprintf("%s:%d", r.ServerAddr4, port), "-servername", name,
			}, args...)...)
			return nil
		}
	}
	quicGo := func(version quic.Version) func(context.Context, string) error {
		return func(ctx context.Context, name string) error {
			conn, err := client.ListenUDP(ctx, "[::]:0")
			if err != nil {
				return err
			}
			defer conn.Close()
			connection, err := quic.Dial(ctx, conn, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(r.ServerAddr6), 443)),
				&tls.Config{ServerName: name, NextProtos: []string{"h3"}, InsecureSkipVerify: true}, //nolint:gosec // a server of the test
				&quic.Config{Versions: []quic.Version{version}})
			if err != nil {
				return err
			}
			return connection.CloseWithError(0, "")
		}
	}
	return []program{
		{"http.curl.example", flow.ProtocolHTTP, "", "", "curl", false, curl("http", 80, r.ServerAddr6)},
		{"tls.curl.example", flow.ProtocolTLS, "t13d", "h2", "curl", true, curl("https", 443, r.ServerAddr6)},
		{"tls12.openssl.example", flow.ProtocolTLS, "t12d", "", "openssl", true, openssl(443, "-tls1_2")},
		{"tls13.openssl.example", flow.ProtocolTLS, "t13d", "h2", "openssl", true, openssl(443, "-tls1_3", "-alpn", "h2,http/1.1")},
		{"mail.openssl.example", flow.ProtocolSMTP, "t13d", "", "openssl", true, openssl(587, "-starttls", "smtp")},
		{"dtls.openssl.example", flow.ProtocolDTLS, "dd2d", "", "openssl", false, openssl(4433, "-dtls")},
		{"v1.quic-go.example", flow.ProtocolQUIC, "q13d", "h3", "", false, quicGo(quic.Version1)},
		{"v2.quic-go.example", flow.ProtocolQUIC, "q13d", "h3", "", false, quicGo(quic.Version2)},
		{"tls.chromium.example", flow.ProtocolTLS, "t13d", "h2", "chromium", true, chromium(r)},
		{"quic.chromium.example", flow.ProtocolQUIC, "q13d", "h3", "chromium", false, chromium(r, "--enable-quic", "--origin-to-force-quic-on=quic.chromium.example:443")},
		{"tls.firefox.example", flow.ProtocolTLS, "t13d", "h2", "firefox-esr", true, firefox(r)},
	}
}

// start starts a browser, which ends with the lab.
func start(ctx context.Context, r *lab.Routed, home string, args ...string) error {
	cmd, err := r.Client.Command(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home)
	_, err = r.Client.StartCommand(cmd)
	return err
}

func chromium(r *lab.Routed, more ...string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		dir, err := os.MkdirTemp(r.Client.Lab().Dir(), "chromium-")
		if err != nil {
			return err
		}
		args := []string{
			"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--disable-default-apps", "--ignore-certificate-errors",
			"--user-data-dir=" + dir, "--host-resolver-rules=MAP *.chromium.example " + r.ServerAddr4 + ", MAP * ~NOTFOUND",
		}
		return start(ctx, r, dir, append(append(args, more...), "https://"+name+"/index.html")...)
	}
}

func firefox(r *lab.Routed) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		dir, err := os.MkdirTemp(r.Client.Lab().Dir(), "firefox-")
		if err != nil {
			return err
		}
		// Every name has the server's address.
		prefs := fmt.Sprintf(`user_pref("network.dns.forceResolve", %q);
user_pref("app.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
`, r.ServerAddr4)
		if err := os.WriteFile(filepath.Join(dir, "user.js"), []byte(prefs), 0o600); err != nil {
			return err
		}
		return start(ctx, r, dir, "firefox-esr", "--headless", "--no-remote", "--profile", dir, "https://"+name+"/index.html")
	}
}

// compareWithTshark compares names, ALPN and the parts of JA4 with tshark's reading.
func compareWithTshark(ctx context.Context, t *testing.T, file string, evidence map[flow.Key]flow.Evidence, ran map[string]program) {
	t.Helper()
	tshark, err := lab.FindProgram("tshark")
	if err != nil {
		t.Log("SKIPPED: the comparison with tshark: it is not installed")
		return
	}
	known, err := exec.CommandContext(ctx, tshark, "-G", "fields").Output()
	if err != nil {
		t.Fatal(err)
	}
	hasJA4 := strings.Contains(string(known), "\ttls.handshake.ja4\t")
	if !hasJA4 {
		t.Log("this tshark has no JA4 (4.2 and later have): it is computed from tshark's lists")
	}
	fields := []string{
		"ip.src", "ipv6.src", "ip.dst", "ipv6.dst", "tcp.srcport", "udp.srcport", "tcp.dstport", "udp.dstport",
		"tls.handshake.extensions_server_name", "tls.handshake.extensions_alpn_str", "tls.handshake.version",
		"tls.handshake.extensions.supported_version", "tls.handshake.ciphersuite", "tls.handshake.extension.type",
		"tls.handshake.sig_hash_alg", "tls.handshake.sig_hash_alg_len",
	}
	if hasJA4 {
		fields = append(fields, "tls.handshake.ja4")
	}
	args := []string{"-r", file, "-Y", "tls.handshake.type == 1", "-T", "fields", "-E", "separator=;"}
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	out, err := exec.CommandContext(ctx, tshark, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	compared := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimRight(string(out), "\n"), "\n") {
		columns := strings.Split(line, ";")
		if len(columns) != len(fields) {
			t.Fatalf("tshark printed %q, want %d columns", line, len(fields))
		}
		end := func(addr4, addr6, tcp, udp int) netip.AddrPort {
			port, err := strconv.ParseUint(columns[tcp]+columns[udp], 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			return netip.AddrPortFrom(netip.MustParseAddr(columns[addr4]+columns[addr6]), uint16(port))
		}
		proto, kind := flow.TCP, "t"
		if columns[4] == "" {
			proto, kind = flow.UDP, "q"
		}
		key, _ := flow.MakeKey(proto, end(0, 1, 4, 5), end(2, 3, 6, 7), 0)
		alpn, _, _ := strings.Cut(columns[9], ",")
		ja4 := ja4OfLists(t, kind, columns[8] != "", alpn, columns[10], columns[11], columns[12], columns[13],
			onlySignatures(t, columns[13], columns[14], columns[15]))
		if hasJA4 {
			ja4 = columns[16]
		}
		e := evidence[key]
		if e.Name != columns[8] || e.ALPN != alpn || e.JA4 != ja4 {
			t.Errorf("%v: wire reads %+v, tshark name %q, ALPN %q, JA4 %q", key, e, columns[8], alpn, ja4)
		}
		compared[columns[8]] = true
	}
	for name, p := range ran {
		if p.tshark && !compared[name] {
			t.Errorf("tshark found no hello for %s", name)
		}
	}
	t.Logf("compared with tshark: %d names: %v", len(compared), compared)
}

// onlySignatures returns the part of tshark's list of algorithms that comes from the
// extension signature_algorithms (13). Two others have lists of the same kind, and tshark
// prints all together: delegated_credentials (34) and signature_algorithms_cert (50).
func onlySignatures(t *testing.T, extensions, signatures, lengths string) string {
	t.Helper()
	list, sizes := strings.Split(signatures, ","), strings.Split(lengths, ",")
	for ext := range strings.SplitSeq(extensions, ",") {
		if ext != "13" && ext != "34" && ext != "50" {
			continue
		}
		size, err := strconv.Atoi(sizes[0])
		if err != nil || size/2 > len(list) {
			t.Fatalf("tshark printed the algorithms %q with lengths %q", signatures, lengths)
		}
		if ext == "13" {
			return strings.Join(list[:size/2], ",")
		}
		list, sizes = list[size/2:], sizes[1:]
	}
	return ""
}

// ja4OfLists computes JA4 from what tshark prints: lists of numbers, separated by commas.
func ja4OfLists(t *testing.T, kind string, hasName bool, alpn, legacy, versions, ciphers, extensions, signatures string) string {
	t.Helper()
	numbers := func(text string) (hex []string) {
		for digits := range strings.SplitSeq(text, ",") {
			if digits == "" {
				continue
			}
			v, err := strconv.ParseUint(digits, 0, 16)
			if err != nil {
				t.Fatal(err)
			}
			if digits := fmt.Sprintf("%04x", v); digits[:2] != digits[2:] || digits[1] != 'a' {
				hex = append(hex, digits)
			}
		}
		return hex
	}
	hash := func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:12] }
	version := slices.Max(append(numbers(versions), ""))
	if version == "" {
		version = slices.Max(numbers(legacy))
	}
	a := kind + map[string]string{"0304": "13", "0303": "12"}[version] + map[bool]string{true: "d", false: "i"}[hasName]
	c, x := numbers(ciphers), numbers(extensions)
	a += fmt.Sprintf("%02d%02d", len(c), len(x))
	if alpn == "" {
		a += "00"
	} else {
		a += alpn[:1] + alpn[len(alpn)-1:]
	}
	slices.Sort(c)
	slices.Sort(x)
	x = slices.DeleteFunc(x, func(ext string) bool { return ext == "0000" || ext == "0010" })
	return a + "_" + hash(strings.Join(c, ",")) + "_" + hash(strings.Join(x, ",")+"_"+strings.Join(numbers(signatures), ","))
}
