// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

func TestISCXNames(t *testing.T) {
	seen := map[string]bool{}
	inside, tor := 0, 0
	for _, group := range iscxGroups {
		if group.category != "" && !slices.Contains(flow.Categories, group.category) {
			t.Errorf("category %q is not in the vocabulary", group.category)
		}
		if !slices.Contains(flow.Apps, group.app) {
			t.Errorf("app %q is not in the vocabulary", group.app)
		}
		for _, name := range strings.Fields(group.names) {
			if seen[strings.ToLower(name)] {
				t.Errorf("%s is listed twice", name)
			}
			seen[strings.ToLower(name)] = true
			if vpn := strings.HasPrefix(name, "vpn_"); vpn != flow.IsVPN(group.category) {
				t.Errorf("%s has category %q", name, group.category)
			} else if vpn {
				inside++
			}
			if group.app == "tor" {
				tor++
			}
		}
	}
	// The 150 captures of the release, and the two that no listing has.
	if len(seen) != 152 || inside != 31 || tor != 9 {
		t.Errorf("%d names, %d inside a VPN, %d of Tor", len(seen), inside, tor)
	}
	// The release covers every application and every category of the paper.
	for _, app := range flow.Apps {
		if !slices.ContainsFunc(iscxGroups, func(g iscxGroup) bool { return g.app == app }) {
			t.Errorf("no capture of %s", app)
		}
	}
	for _, category := range flow.Categories[:12] {
		if !slices.ContainsFunc(iscxGroups, func(g iscxGroup) bool { return g.category == category }) {
			t.Errorf("no capture of %s", category)
		}
	}
}

func TestReadISCX(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"NonVPN-PCAPs-01/AIMchat1.pcapng", "NonVPN-PCAPs-02/youtubehtml5_1.PCAP", "VPN-PCAPS-01/vpn_ftps_A.pcap.gz", "Tor/torFacebook.pcap", "README.txt"} {
		writeFile(t, filepath.Join(dir, name), nil)
	}
	got, err := ReadISCX(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, c := range got {
		labels = append(labels, c.Name+" "+c.Category+" "+c.App)
		if c.VPN != (c.Name == "vpn_ftps_A") || c.Set != "iscx" || c.File != filepath.Join(dir, c.Path) {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{"AIMchat1 chat aim", "youtubeHTML5_1 streaming youtube", "torFacebook  tor", "vpn_ftps_A vpn-file-transfer ftps"}; !slices.Equal(labels, want) {
		t.Errorf("got %q\nwant %q", labels, want)
	}

	writeFile(t, filepath.Join(dir, "mine.pcap"), nil)
	if _, err := ReadISCX(dir, nil); err == nil || !strings.Contains(err.Error(), "mine.pcap") {
		t.Errorf("%v", err)
	}
	var skipped []string
	if got, err = ReadISCX(dir, func(path string) { skipped = append(skipped, path) }); err != nil || len(got) != 4 || len(skipped) != 1 {
		t.Errorf("%d captures, %q, %v", len(got), skipped, err)
	}
	writeFile(t, filepath.Join(dir, "aimchat1.pcap"), nil)
	if _, err := ReadISCX(dir, func(string) {}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("%v", err)
	}

	empty := t.TempDir()
	if _, err := ReadISCX(empty, nil); err == nil {
		t.Error("an empty directory is no error")
	}
	writeFile(t, filepath.Join(empty, "VPN-PCAPS-01.zip"), nil)
	if _, err := ReadISCX(empty, nil); err == nil || !strings.Contains(err.Error(), "VPN-PCAPS-01.zip") || len(fault.Advice(err)) != 1 {
		t.Errorf("%v", err)
	}
	if _, err := ReadISCX(filepath.Join(empty, "missing"), nil); err == nil {
		t.Error("a missing directory is no error")
	}
}
