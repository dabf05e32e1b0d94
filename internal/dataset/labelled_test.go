// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

// tree creates empty files below a new directory.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mine")
	for _, file := range files {
		writeFile(t, filepath.Join(dir, file), nil)
	}
	return dir
}

func TestReadLabelled(t *testing.T) {
	dir := tree(t, "Call/monday.pcap", "call/office/tuesday.PCAPNG.gz", "Backup.cap", "vpn-voip/x.pcap.zst", "README.md", "call/notes.txt")
	got, err := ReadLabelled(dir, flow.Category)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range got {
		if c.Set != "mine" || c.Use != "train" || c.App != "" || c.VPN != strings.HasPrefix(c.Category, "vpn-") ||
			c.File != filepath.Join(dir, c.Path) || c.Name != c.Path {
			t.Errorf("%+v", c)
		}
		lines = append(lines, c.Path+" "+c.Category)
	}
	want := "Backup.cap backup,Call/monday.pcap call,call/office/tuesday.PCAPNG.gz call,vpn-voip/x.pcap.zst vpn-voip"
	if list := strings.Join(lines, ","); list != want {
		t.Errorf("got %s\nwant %s", list, want)
	}

	got, err = ReadLabelled(tree(t, "zoom.pcap", "teams/a.pcap"), flow.App)
	if err != nil || got[0].App != "teams" || got[1].App != "zoom" || got[0].Category != "" || got[1].Label(flow.App) != "zoom" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadLabelledRefused(t *testing.T) {
	for _, test := range []struct {
		task  flow.Task
		says  string
		files []string
	}{
		{flow.Category, "no captures", nil},
		{flow.Category, "no captures", []string{"call/notes.txt"}},
		{flow.Category, `"call" is the only label`, []string{"call/a.pcap", "call.pcap"}},
		{flow.Category, `"my call" cannot be a label`, []string{"my call/a.pcap", "b.pcap"}},
		{flow.Category, `"unknown" cannot be a label`, []string{"unknown/a.pcap", "b.pcap"}},
		{flow.Category, "use --task app", []string{"youtube/a.pcap", "b.pcap"}},
		{flow.App, "use --task category", []string{"voip/a.pcap", "b.pcap"}},
	} {
		dir := tree(t, append(test.files, "README")...)
		_, err := ReadLabelled(dir, test.task)
		if err == nil {
			t.Errorf("%q: no error, want %q", test.files, test.says)
			continue
		}
		text := err.Error() + "; " + strings.Join(fault.Advice(err), "; ")
		if !strings.Contains(text, test.says) || !strings.Contains(text, dir) {
			t.Errorf("%q: %q, want %q", test.files, text, test.says)
		}
	}
	if _, err := ReadLabelled(filepath.Join(t.TempDir(), "none"), flow.Category); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("%v", err)
	}
}

// A named pipe is no capture: to read it would wait for a writer.
func TestLabelledPipe(t *testing.T) {
	dir := t.TempDir()
	for _, label := range []string{"chat", "voip"} {
		if err := os.Mkdir(filepath.Join(dir, label), 0o755); err != nil {
			t.Fatal(err)
		}
		writeCapture(t, filepath.Join(dir, label, "good.pcap"))
	}
	if err := unix.Mkfifo(filepath.Join(dir, "voip", "pipe.pcap"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good.pcap", filepath.Join(dir, "voip", "link.pcap")); err != nil {
		t.Fatal(err)
	}
	captures, err := ReadLabelled(dir, flow.Category)
	if err != nil || len(captures) != 3 {
		t.Errorf("%v, %v", captures, err)
	}
}
