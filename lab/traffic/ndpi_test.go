// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/dataset"
	"github.com/dpclass/dpclass/internal/vector"
)

// speaks is what nDPI must see in a capture.
type speaks struct {
	names []string // one of them
	// port is where nDPI looks for the protocol; 0: anywhere. The lab has servers on any
	// port, so nDPI gets a copy of the capture whose servers are on this one. It must not
	// guess by the port alone (ndpiReader -d).
	port uint16
}

// spoken is what the programs and tunnels speak. Those that are not in it speak what nDPI
// 4.2 does not know: teeworlds, Minetest, Shadowsocks, OpenVPN over TCP, IKE (which it guesses
// by the port alone).
var spoken = map[string]speaks{
	"curl": {names: []string{"TLS"}}, "curl-files": {names: []string{"TLS"}}, "lftp": {names: []string{"TLS", "FTP_CONTROL"}},
	"chromium": {names: []string{"TLS", "QUIC"}}, "chromium-upload": {names: []string{"TLS", "QUIC"}}, "chromium-video": {names: []string{"TLS", "QUIC"}},
	"firefox": {names: []string{"TLS", "QUIC"}}, "ffmpeg-hls": {names: []string{"TLS"}}, "ffmpeg-dash": {names: []string{"TLS"}}, "ffmpeg-mp4": {names: []string{"TLS"}},
	"mpv-hls": {names: []string{"TLS"}}, "dot": {names: []string{"TLS"}}, "weechat": {names: []string{"TLS", "IRC"}}, "xmpp": {names: []string{"Jabber", "TLS"}},
	"mqtt": {names: []string{"MQTT", "TLS"}}, "curl-mail": {names: []string{"TLS", "SMTP", "IMAP"}},
	"mbsync": {[]string{"IMAPS", "IMAP"}, 993}, "msmtp": {[]string{"SMTPS", "SMTP"}, 465},
	"sftp": {names: []string{"SSH"}}, "scp": {names: []string{"SSH"}}, "rsync": {names: []string{"SSH"}}, "ssh": {names: []string{"SSH"}}, "mosh": {names: []string{"SSH"}},
	"telnet": {names: []string{"Telnet"}}, "rdp": {names: []string{"RDP"}}, "vnc": {names: []string{"VNC"}}, "smbclient": {[]string{"SMBv23"}, 445},
	"dns": {[]string{"DNS"}, 53}, "ntp": {[]string{"NTP"}, 123}, "snmp": {[]string{"SNMP"}, 161},
	"baresip": {names: []string{"SIP", "RTP"}}, "rtp": {names: []string{"RTP"}}, "webrtc": {names: []string{"STUN", "DTLS"}},
	"webrtc-turn": {names: []string{"STUN", "TLS"}}, "mumble": {names: []string{"TLS"}}, "apt": {names: []string{"HTTP", "TLS"}},
	"avahi": {names: []string{"MDNS"}}, "dhcp": {names: []string{"DHCP", "DHCPV6"}}, "upnp": {names: []string{"SSDP"}}, "qbittorrent": {names: []string{"BitTorrent"}},
	"aria2": {names: []string{"BitTorrent"}}, "transmission": {names: []string{"BitTorrent"}},
	"wireguard": {names: []string{"WireGuard"}}, "openconnect": {names: []string{"TLS"}}, "stunnel": {names: []string{"TLS"}}, "tor": {names: []string{"TLS", "Tor"}},
	"quic-go": {names: []string{"QUIC"}}, "chromium-h3": {names: []string{"QUIC"}}, "chromium-h3-upload": {names: []string{"QUIC"}},
	"chromium-h3-hls": {names: []string{"QUIC"}}, "chromium-h3-dash": {names: []string{"QUIC"}},
	"ffmpeg-rtsp": {names: []string{"RTSP"}}, "chromium-hls": {names: []string{"TLS"}}, "chromium-dash": {names: []string{"TLS"}}, "chromium-chat": {names: []string{"TLS"}},
}

// seldom are protocols that only some rounds of a program have: SIP in the clear, OpenVPN
// with tls-auth, which is all that nDPI knows of it. With so many captures, one must.
var seldom = map[string][]string{"SIP": {"baresip"}, "OpenVPN": {"openvpn-udp"}, "IMAPS": {"mbsync"}, "SMTPS": {"msmtp"}, "STUN": {"webrtc"}, "Syslog": {"rsyslog"}}

const seldomCaptures = 8

// checkNDPI asks nDPI what it sees in the captures.
func checkNDPI(t *testing.T, dir string, captures []*Capture) {
	reader, err := exec.LookPath("ndpiReader")
	if err != nil {
		t.Skipf("SKIPPED: %v; apt-get install libndpi-bin", err)
	}
	asked := 0
	seen := map[string]int{}                  // flows, by name
	byProgram := map[string]int{}             // captures
	inPrograms := map[string]map[string]int{} // flows, by program and name
	for _, c := range captures {
		want, ok := spoken[c.Program]
		rarely := slices.ContainsFunc(slices.Collect(maps.Values(seldom)), func(programs []string) bool { return slices.Contains(programs, c.Program) })
		if !ok && !rarely {
			continue
		}
		asked++
		byProgram[c.Program]++
		names := askNDPI(t, reader, filepath.Join(dir, c.Path), want.port)
		if inPrograms[c.Program] == nil {
			inPrograms[c.Program] = map[string]int{}
		}
		for name, flows := range names {
			seen[name] += flows
			inPrograms[c.Program][name] += flows
		}
		if ok && !slices.ContainsFunc(want.names, func(name string) bool { return names[name] > 0 }) {
			t.Errorf("%s: nDPI sees %v, want one of %q", c.Path, names, want.names)
		}
	}
	for name, programs := range seldom {
		for _, program := range programs {
			if byProgram[program] >= seldomCaptures && inPrograms[program][name] == 0 {
				t.Errorf("nDPI sees no %s in %d captures of %s, but %v", name, byProgram[program], program, inPrograms[program])
			}
		}
	}
	for _, program := range slices.Sorted(maps.Keys(byProgram)) {
		t.Logf("%-16s %3d captures, flows by nDPI: %v", program, byProgram[program], inPrograms[program])
	}
	if asked == 0 {
		t.Error("no capture of a program that nDPI knows")
	}
}

// TestNDPI is checkNDPI for a directory that dplab traffic has made.
func TestNDPI(t *testing.T) {
	dir := os.Getenv(labDir)
	if dir == "" {
		t.Skipf("SKIPPED: %s does not name a directory that dplab traffic has made", labDir)
	}
	rows, err := os.Open(filepath.Join(dir, "manifest.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var captures []*Capture
	read := csv.NewReader(rows)
	for {
		row, err := read.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if field := func(name string) string { return row[slices.Index(columns, name)] }; field("path") != "path" {
			captures = append(captures, &Capture{Path: field("path"), Program: field("program")})
		}
	}
	checkNDPI(t, dir, captures)
	// HTTP/3, where a program has any: QUIC is what its UDP flows are.
	t.Run("QUIC", func(t *testing.T) { checkNDPIQUIC(t, dir, captures) })
}

// checkNDPIQUIC: what begins like an Initial packet of QUIC (RFC 9000, section 17.2.2) is QUIC for nDPI.
func checkNDPIQUIC(t *testing.T, dir string, captures []*Capture) {
	reader, err := exec.LookPath("ndpiReader")
	if err != nil {
		t.Skipf("SKIPPED: %v; apt-get install libndpi-bin", err)
	}
	found := 0
	for _, c := range captures {
		file := filepath.Join(dir, c.Path)
		initials := quicFlows(t, file)
		if initials == 0 {
			continue
		}
		found++
		if names := askNDPI(t, reader, file, 443); names["QUIC"] == 0 {
			t.Errorf("%s: nDPI sees no QUIC in %d flows that begin with an Initial packet, but %v", c.Path, initials, names)
		}
	}
	if found == 0 {
		t.Skip("SKIPPED: no capture has QUIC")
	}
	t.Logf("%d captures have QUIC", found)
}

// quicFlows returns the number of flows whose first packet with payload is an Initial packet
// of QUIC version 1.
func quicFlows(t *testing.T, file string) int {
	t.Helper()
	reader, err := capture.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	walker, flows := dataset.NewWalker(reader), 0
	for {
		step, err := walker.Next()
		if errors.Is(err, io.EOF) {
			return flows
		}
		if err != nil {
			t.Fatal(err)
		}
		payload := step.Data[min(step.Packet.Payload, len(step.Data)):]
		if step.Sampled && step.Flow.Payloads == 1 && step.Packet.Proto == 17 && len(payload) >= 1200 && payload[0]&0xf0 == 0xc0 &&
			binary.BigEndian.Uint32(payload[1:]) == 1 {
			flows++
		}
	}
}

// askNDPI returns how many flows nDPI sees of each protocol. With a port, it reads a copy
// with the servers there.
func askNDPI(t *testing.T, reader, file string, port uint16) map[string]int {
	t.Helper()
	if port != 0 {
		file = moveServers(t, file, port)
	}
	list := filepath.Join(t.TempDir(), "flows.csv")
	if out, err := exec.CommandContext(t.Context(), reader, "-d", "-q", "-i", file, "-C", list).CombinedOutput(); err != nil {
		t.Fatalf("ndpiReader %s: %v: %s", file, err, out)
	}
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	head, rest, _ := strings.Cut(string(text), "\n")
	column := slices.Index(strings.Split(head, ","), "ndpi_proto")
	if column < 0 {
		t.Fatalf("ndpiReader's list has no ndpi_proto: %q", head)
	}
	for line := range strings.Lines(rest) {
		if fields := strings.Split(line, ","); len(fields) > column {
			for _, name := range strings.Split(fields[column], ".") { // TLS.AmazonAWS: by the address
				names[name]++
			}
		}
	}
	return names
}

// moveServers copies a capture and puts the server of each flow on a port: the one that
// got its first packet.
func moveServers(t *testing.T, file string, port uint16) string {
	t.Helper()
	in, err := capture.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	moved := filepath.Join(t.TempDir(), "moved.pcap")
	file2, err := os.Create(moved)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(file2)
	write := func(data []byte) {
		if _, err := out.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	write(pcapHeader(linkRaw))
	type ends struct {
		proto    uint8
		from, to netip.AddrPort
	}
	servers := map[ends]bool{} // whether "to" is the server
	for {
		packet, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data := bytes.Clone(packet.Data)
		if p, reason := vector.Parse(data, packet.Length); reason == vector.OK {
			there, back := ends{p.Proto, p.Src, p.Dst}, ends{p.Proto, p.Dst, p.Src}
			if _, known := servers[there]; !known {
				servers[there], servers[back] = true, false
			}
			at := p.L4
			if servers[there] {
				at += 2
			}
			binary.BigEndian.PutUint16(data[at:], port)
		}
		write(pcapRecord(packet.Time, len(data), packet.Length))
		write(data)
	}
	if err := errors.Join(out.Flush(), file2.Close()); err != nil {
		t.Fatal(err)
	}
	return moved
}

// TestSpoken compares the names in spoken with the programs.
func TestSpoken(t *testing.T) {
	names := Tunnels()
	for _, p := range Programs() {
		names = append(names, p.Name)
	}
	for name := range spoken {
		if !slices.Contains(names, name) {
			t.Errorf("the lab has no program or tunnel %q", name)
		}
	}
	for protocol, programs := range seldom {
		for _, name := range programs {
			if !slices.Contains(names, name) {
				t.Errorf("%s: the lab has no program or tunnel %q", protocol, name)
			}
		}
	}
	for _, tunnel := range tunnels {
		for _, name := range tunnel.streams {
			if !slices.Contains(names, name) {
				t.Errorf("tunnel %s: the lab has no program %q", tunnel.name, name)
			}
		}
	}
}
