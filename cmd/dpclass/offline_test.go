// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/vector/packettest"
)

// findLibrary returns ONNX Runtime's library: where dpclass looks for it, else from
// bin, where make deps puts it; "" if it is in neither. The test binary is elsewhere.
func findLibrary(t *testing.T) string {
	t.Helper()
	built, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"", built} {
		if library, err := ort.Find(place); err == nil {
			return library
		}
	}
	return ""
}

const noLibrary = "SKIPPED, no ONNX Runtime: run make deps, or set " + ort.LibraryVariable

// needLibrary has the test's runs of dpclass find ONNX Runtime, or skips the test.
func needLibrary(t *testing.T) {
	t.Helper()
	library := findLibrary(t)
	if library == "" {
		t.Skip(noLibrary)
	}
	t.Setenv(ort.LibraryVariable, library)
}

// offlineRun runs the program with the arguments and no input.
func offlineRun(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	return call(t, "", args...)
}

func offlineSave(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// twoFlows is a capture of a TCP connection over IPv4 and one UDP packet over IPv6.
func twoFlows() []byte {
	client, server := netip.MustParseAddrPort("10.0.0.9:40000"), netip.MustParseAddrPort("10.0.0.2:443")
	tcp := func(src, dst netip.AddrPort, payload int) []byte {
		return packettest.Spec{Payload: payload, Src: src, Dst: dst}.Build().Data
	}
	return packettest.Pcap(
		tcp(client, server, 0), tcp(client, server, 200), tcp(server, client, 1200), tcp(client, server, 60),
		packettest.Spec{IPv6: true, Proto: packettest.UDP, Payload: 30}.Build().Data,
	)
}

func TestClassify(t *testing.T) {
	needLibrary(t)
	name := offlineSave(t, filepath.Join(t.TempDir(), "two.pcap"), twoFlows())
	code, out, errOut := offlineRun(t, "classify", name, "-o", "json")
	if code != 0 || errOut != "" {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want one for each flow:\n%s", len(lines), out)
	}
	var record flow.Record
	if err := json.Unmarshal([]byte(lines[0]), &record); err != nil {
		t.Fatal(err)
	}
	if record.Src.String() != "10.0.0.9" || record.DstPort != 443 || record.Proto != "tcp" || record.Packets != 4 || record.Bytes != 4*40+1460 ||
		!record.FirstSeen.Equal(packettest.Began) || !record.LastSeen.Equal(packettest.Began.Add(3*packettest.Step)) {
		t.Errorf("%s", lines[0])
	}
	if record.Category == "" || record.Source != "model" || record.Samples < 1 || record.Samples > 3 || record.CategoryConfidence <= 0 {
		t.Errorf("%s", lines[0])
	}
	for _, field := range []string{"iface", "packets_in", "dropped", "generation", "file"} {
		if strings.Contains(out, `"`+field+`"`) {
			t.Errorf("field %q is in %s", field, out)
		}
	}

	code, out, _ = offlineRun(t, "classify", name, "--filter", "proto:udp")
	if code != 0 || !strings.Contains(out, "[2001:db8:1:2:3:4:5:6]:40001") || strings.Contains(out, "10.0.0.9") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// TestClassifyDNS: port 53 is protocol dns without a sample, as on a live interface.
func TestClassifyDNS(t *testing.T) {
	needLibrary(t)
	var packets [][]byte
	for _, ends := range [][2]string{{"10.0.0.9:40000", "10.0.0.2:53"}, {"[fd00::2]:53", "[fd00::1]:40000"}, {"10.0.0.9:40001", "10.0.0.2:5300"}} {
		src, dst := netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1])
		packets = append(packets, packettest.Spec{Proto: packettest.UDP, IPv6: src.Addr().Is6(), Payload: 30, Src: src, Dst: dst}.Build().Data)
	}
	name := offlineSave(t, filepath.Join(t.TempDir(), "dns.pcap"), packettest.Pcap(packets...))
	code, out, errOut := offlineRun(t, "classify", name, "-o", "json")
	if code != 0 || errOut != "" {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for n, line := range lines {
		var record flow.Record
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		if isDNS := n < 2; (record.Protocol == "dns") != isDNS || (record.Samples == 0) != isDNS {
			t.Errorf("%s", line)
		}
	}
	if len(lines) != 3 {
		t.Errorf("%d flows, want 3:\n%s", len(lines), out)
	}
}

func TestClassifyBadFiles(t *testing.T) {
	needLibrary(t)
	dir := t.TempDir()
	whole := twoFlows()
	lying := bytes.Clone(whole)
	copy(lying[24+8:], []byte{0xf0, 0xff, 0xff, 0xff, 0xf0, 0xff, 0xff, 0xff})
	for _, test := range []struct {
		name string
		data []byte // nil: there is no such file
		code int
		says string // on standard error
	}{
		{"missing", nil, 1, "no such file"},
		{"empty", []byte{}, 1, "empty"},
		{"random", []byte("certainly no capture"), 1, "neither pcap nor pcapng"},
		{"header", whole[:24], 0, ""},
		{"cut-in-header", whole[:12], 1, "is cut"},
		{"cut-in-first", whole[:50], 1, "no complete packet"},
		{"cut", whole[:len(whole)-1], 0, "warning"},
		{"lying", lying, 1, "4294967280"},
	} {
		path := filepath.Join(dir, test.name)
		if test.data != nil {
			offlineSave(t, path, test.data)
		}
		code, out, errOut := offlineRun(t, "classify", "-o", "json", path)
		if code != test.code || !strings.Contains(errOut, test.says) || (errOut == "") != (test.says == "") {
			t.Errorf("%s: exit %d, %q; want %d and %q", test.name, code, errOut, test.code, test.says)
		}
		if strings.Count(errOut, "\n") > 4 || (errOut != "" && !strings.Contains(errOut, path)) {
			t.Errorf("%s: %q", test.name, errOut)
		}
		if flows := strings.Count(out, "\n"); (flows > 0) != (test.name == "cut") {
			t.Errorf("%s: %d flows", test.name, flows)
		}
	}
	// A bad file does not keep the others from being shown.
	good := offlineSave(t, filepath.Join(dir, "good"), whole)
	code, out, errOut := offlineRun(t, "classify", "-o", "json", filepath.Join(dir, "missing"), good)
	if code != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(out, `"file":"`+good+`"`) ||
		!strings.Contains(errOut, "no such file") || !strings.Contains(errOut, "skipped 1 of 2 captures") {
		t.Errorf("exit %d, %q\n%s", code, errOut, out)
	}
}

// withLink returns a capture with another link type.
func withLink(linkType uint32, file []byte) []byte {
	binary.LittleEndian.PutUint32(file[20:], linkType)
	return file
}

// What is odd about a capture is said, and neither -o json nor the captures after it stop.
func TestClassifyOddFiles(t *testing.T) {
	needLibrary(t)
	dir := t.TempDir()
	packet := packettest.Spec{Proto: packettest.UDP, Payload: 200}.Build().Data
	var cut, any1, any2 [][]byte
	for i := range 5 {
		one := bytes.Clone(packet)
		one[5] = byte(i) // another IPv4 identification
		cut = append(cut, one[:28])
		cooked := append(make([]byte, 14), 8, 0)
		any1 = append(any1, append(cooked, one...), append(bytes.Clone(cooked), one...))
		for _, index := range []byte{3, 2} {
			any2 = append(any2, append([]byte{8, 0, 0, 0, 0, 0, 0, index, 19: 0}, one...))
		}
	}
	headers := packettest.Pcap(cut...)
	for at := 24; at < len(headers); at += 16 + 28 {
		binary.LittleEndian.PutUint32(headers[at+12:], uint32(len(packet)))
	}
	bridge := packettest.Pcap(any1...)
	for i, at := 0, 24; at < len(bridge); i, at = i+1, at+16+16+len(packet) {
		binary.LittleEndian.PutUint32(bridge[at:], uint32(1700000000+i/2)) // both at the same time
		binary.LittleEndian.PutUint32(bridge[at+4:], 0)
	}
	// A time stamp in ns that pcapng takes for one in µs.
	far := []byte("\x0a\x0d\x0d\x0a\x1c\x00\x00\x00\x4d\x3c\x2b\x1a\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x1c\x00\x00\x00" +
		"\x01\x00\x00\x00\x14\x00\x00\x00\x65\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00")
	order := binary.LittleEndian
	far = order.AppendUint32(far, 6)
	far = order.AppendUint32(far, uint32(32+len(packet)))
	far = order.AppendUint32(far, 0)
	far = order.AppendUint32(far, 0xec<<24)
	far = order.AppendUint32(far, 0)
	far = order.AppendUint32(order.AppendUint32(far, uint32(len(packet))), uint32(len(packet)))
	far = order.AppendUint32(append(far, packet...), uint32(32+len(packet)))
	for _, test := range []struct {
		name    string
		data    []byte
		packets int    // of the flow
		says    string // on standard error
		table   string // in the table
	}{
		{"headers", headers, 5, "only the headers of 1 flow were captured", "1 undecided"},
		{"sll2", withLink(276, packettest.Pcap(any2...)), 5, "left out 5 packets that another interface", "without a flow: 5 seen on another interface"},
		{"sll", withLink(113, bridge), 10, "5 packets came twice and count twice", "1 flow of 10 packets"},
		{"far", far, 1, "outside the years 1678 to 2262", "1 flow of 1 packet"},
	} {
		path := offlineSave(t, filepath.Join(dir, test.name), test.data)
		code, out, errOut := offlineRun(t, "classify", "-o", "json", path)
		var record flow.Record
		if err := json.Unmarshal([]byte(out), &record); err != nil {
			t.Fatalf("%s: %v: exit %d, %q, %q", test.name, err, code, out, errOut)
		}
		if code != 0 || record.Packets != uint64(test.packets) || !strings.Contains(errOut, test.says) || !strings.Contains(errOut, path) {
			t.Errorf("%s: exit %d, %d packets, %q", test.name, code, record.Packets, errOut)
		}
		if _, out, _ := offlineRun(t, "classify", path); !strings.Contains(out, test.table) {
			t.Errorf("%s:\n%s", test.name, out)
		}
	}
	wifi := offlineSave(t, filepath.Join(dir, "wifi"), withLink(105, packettest.Pcap(packet)))
	code, out, errOut := offlineRun(t, "classify", "-o", "json", filepath.Join(dir, "far"), wifi, filepath.Join(dir, "sll2"))
	if code != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(errOut, "IEEE 802.11 (105)") || !strings.Contains(errOut, "skipped 1 of 3") {
		t.Errorf("exit %d, %q\n%s", code, errOut, out)
	}
}

func TestEval(t *testing.T) {
	needLibrary(t)
	dir := t.TempDir()
	offlineSave(t, filepath.Join(dir, "two.pcap"), twoFlows())
	manifest := offlineSave(t, filepath.Join(dir, "m.csv"), []byte("path,set,category,app,vpn\ntwo.pcap,one,chat,skype,0\n"))
	for level, n := range map[string]int{"flow": 2, "packet": 4} {
		code, out, errOut := offlineRun(t, "eval", "--manifest", manifest, "--task", "category", "--level", level, "-o", "json")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errOut)
		}
		var result map[string]any
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"task", "level", "n", "accuracy", "macro_f1", "weighted_precision", "weighted_recall", "weighted_f1",
			"classes", "confusion", "unknown_share", "left_out"} {
			if _, ok := result[field]; !ok {
				t.Errorf("field %q is missing in %s", field, out)
			}
		}
		if result["n"] != float64(n) {
			t.Errorf("%s: n is %v, want %d", level, result["n"], n)
		}
	}
	// A capture that cannot be read does not keep the others from being scored.
	offlineSave(t, manifest, []byte("path,set,category,app,vpn\nbad.pcap,one,chat,skype,0\nmissing.pcap,one,none,skype,0\ntwo.pcap,one,chat,skype,0\n"))
	offlineSave(t, filepath.Join(dir, "bad.pcap"), []byte("no capture, whatever it is called"))
	for _, system := range []string{"--system=false", "--system"} {
		code, out, errOut := offlineRun(t, "eval", "--manifest", manifest, "--task", "category", "--level", "flow", "-o", "json", system)
		if code != 1 || !strings.Contains(out, `"n":2`) || !strings.Contains(out, `"skipped":["bad.pcap","missing.pcap"]`) ||
			!strings.Contains(errOut, "skipped 2 of 3 captures") {
			t.Errorf("%s: exit %d, %q\n%s", system, code, errOut, out)
		}
	}
	// Rows of no known label are left out; with nothing left there is nothing to say.
	offlineSave(t, manifest, []byte("path,category,app,vpn\ntwo.pcap,other,skype,1\n"))
	for _, task := range []string{"category", "app"} {
		code, _, errOut := offlineRun(t, "eval", "--manifest", manifest, "--task", task, "--level", "flow")
		if code != 1 || !strings.Contains(errOut, "nothing to score") {
			t.Errorf("%s: exit %d, %q", task, code, errOut)
		}
	}
	if code, out, errOut := offlineRun(t, "eval", "--manifest", manifest, "--task", "app", "--level", "flow", "--include-vpn"); code != 0 {
		t.Errorf("exit %d, %q\n%s", code, errOut, out)
	}
}

func TestDatasetBuild(t *testing.T) {
	dir := t.TempDir()
	offlineSave(t, filepath.Join(dir, "two.pcap"), twoFlows())
	manifest := offlineSave(t, filepath.Join(dir, "m.csv"), []byte("path,category,app\ntwo.pcap,chat,skype\n"))
	out := filepath.Join(dir, "set")
	if code, text, errOut := offlineRun(t, "dataset", "build", "--manifest", manifest, "--out", out); code != 0 || !strings.Contains(text, "4 packets of 2 flows in 1 captures") {
		t.Errorf("exit %d, %q, %q", code, text, errOut)
	}
	// Two manifests; their relative paths start from different directories.
	if err := os.Mkdir(filepath.Join(dir, "lab"), 0o755); err != nil {
		t.Fatal(err)
	}
	offlineSave(t, filepath.Join(dir, "lab", "two.pcap"), twoFlows())
	lab := offlineSave(t, filepath.Join(dir, "lab", "manifest.csv"), []byte("path,category,app,set,use\ntwo.pcap,voip,sip,lab,evaluate\n"))
	if code, text, errOut := offlineRun(t, "dataset", "build", "--manifest", manifest, "--manifest", lab, "--out", out+"-both"); code != 0 || !strings.Contains(text, "8 packets of 4 flows in 2 captures") {
		t.Errorf("exit %d, %q, %q", code, text, errOut)
	}
	own := filepath.Join(dir, "own")
	for _, label := range []string{"call", "gaming"} {
		if err := os.MkdirAll(filepath.Join(own, label), 0o755); err != nil {
			t.Fatal(err)
		}
		offlineSave(t, filepath.Join(own, label, "a.pcap"), twoFlows())
	}
	code, text, errOut := offlineRun(t, "dataset", "build", "--captures", own, "--out", filepath.Join(dir, "own-set"))
	if code != 0 || !strings.Contains(text, "gaming         1      2        4") || !strings.Contains(errOut, `"gaming" has 2 flows`) {
		t.Errorf("exit %d, %q, %q", code, text, errOut)
	}
	offlineSave(t, filepath.Join(own, "broken.pcap"), []byte("no capture, whatever it is called"))
	offlineSave(t, manifest, []byte("path,category,app\nmissing.pcap,chat,skype\n"))
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--manifest", manifest}, 2, "--out is missing"},
		{[]string{"--out", out}, 2, "--manifest"},
		{[]string{"--manifest", manifest, "--iscx", dir, "--out", out}, 2, "one of"},
		{[]string{"--manifest", manifest, "--manifest", manifest, "--out", out + "2"}, 1, "already in manifest"},
		{[]string{"--manifest", manifest, "--out", out}, 1, "not empty"},
		{[]string{"--manifest", manifest, "--out", out + "2"}, 1, "missing.pcap"},
		{[]string{"--manifest", manifest, "--out", out + "2", "--per-flow", "-1"}, 2, "--per-flow"},
		{[]string{"--manifest", filepath.Join(dir, "none.csv"), "--out", out + "2"}, 1, "none.csv"},
		{[]string{"--iscx", dir, "--out", out + "2"}, 1, "two.pcap"},
		{[]string{"--captures", own, "--root", dir, "--out", out + "2"}, 2, "--root"},
		{[]string{"--manifest", manifest, "--task", "app", "--out", out + "2"}, 2, "--task"},
		{[]string{"--captures", own, "--task", "mood", "--out", out + "2"}, 2, "mood"},
		{[]string{"--captures", filepath.Join(own, "call"), "--out", out + "2"}, 1, "only label"},
	} {
		code, _, errOut := offlineRun(t, append([]string{"dataset", "build"}, test.args...)...)
		if code != test.code || !strings.Contains(errOut, test.says) || strings.Count(errOut, "\n") > 4 {
			t.Errorf("%q: exit %d, %q; want %d and %q", test.args, code, errOut, test.code, test.says)
		}
		if _, err := os.Stat(out + "2"); err == nil {
			t.Errorf("%q: half a dataset is left", test.args)
		}
	}
	// A capture that cannot be read does not keep the others from being used.
	code, text, errOut = offlineRun(t, "dataset", "build", "--captures", own, "--out", out+"2")
	meta, err := os.ReadFile(filepath.Join(out+"2", "meta.json"))
	if code != 1 || err != nil || !strings.Contains(text, "8 packets of 4 flows in 2 captures") || strings.Contains(text, "broken") ||
		!strings.Contains(errOut, "neither pcap nor pcapng") || !strings.Contains(errOut, "skipped 1 of 3 captures") ||
		!strings.Contains(string(meta), `"skipped": "capture`) {
		t.Errorf("exit %d, %v, %q, %q\n%s", code, err, text, errOut, meta)
	}
}
