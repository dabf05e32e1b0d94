// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

func writeMap(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "map.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMap(t *testing.T) {
	m, err := ReadMap(writeMap(t, `---
# a comment

firefox: web   # mine
"chrom*": web
*.zoom.us: voip
'meet.example': "voip"
Backup-?.service: backup
"/docker/*": box
sshd: -
*: other
`), flow.Category)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		domains bool
		name    string
		want    string
	}{
		{false, "firefox", "web"}, {false, "Firefox", "web"}, {false, "firefox-bin", "other"}, {false, "chromium", "web"}, {false, "chrom", "web"},
		{true, "us02.zoom.us", "voip"}, {true, "zoom.us", "other"}, {true, "a.meet.example", "voip"}, {true, "ameet.example", "other"},
		{false, "a.meet.example", "other"}, {false, "backup-1.service", "backup"}, {false, "/docker/abc", "box"}, {false, "sshd", leaveOut},
	} {
		if got, ok := m.find(test.domains, test.name); !ok || got != test.want {
			t.Errorf("%s: %q %v, want %q", test.name, got, ok, test.want)
		}
	}
	var none *Map
	if got, ok := none.find(false, "firefox"); ok {
		t.Errorf("no map: %q", got)
	}
}

func TestBadMap(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "no lines",
		"firefox web":                 `line 1: "firefox web" is not PATTERN: LABEL`,
		"a: b\nfirefox: [web]":        `line 2: "[web]" cannot be a label`,
		"firefox: web mail":           "is not PATTERN: LABEL",
		"firefox: Web":                `"Web" cannot be a label`,
		"firefox: unknown":            `"unknown" cannot be a label`,
		"firefox: skype":              `"skype" is a label for task app`,
		"firefox: web\nfirefox: chat": "line 2: the pattern \"firefox\" is there twice",
		": web":                       "is not PATTERN: LABEL",
		"firefox: manifest.csv":       `"manifest.csv" cannot be a label: the directory has a file of that name`,
		"firefox: # nothing":          "is not PATTERN: LABEL",
		`"firefox: web`:               "is not PATTERN: LABEL",
	} {
		_, err := ReadMap(writeMap(t, text), flow.Category)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		} else if text != "firefox: web\nfirefox: chat" && len(fault.Advice(err)) == 0 {
			t.Errorf("%q: no advice", text)
		}
	}
	if _, err := ReadMap(writeMap(t, "firefox: skype"), flow.App); err != nil {
		t.Error(err)
	}
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"*", "", true}, {"?", "", false}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbYbZ", false}, {"*.a", "x.a.a", true}, {"**a", "ba", true},
		{"a", "aa", false}, {"a?", "aa", true},
	} {
		if got := glob(test.pattern, test.name); got != test.want {
			t.Errorf("%q %q: %v", test.pattern, test.name, got)
		}
	}
}

func TestLabelOf(t *testing.T) {
	for _, test := range []struct {
		name string
		by   By
		want string
	}{
		{"curl", Process, "curl"}, {"Web Content", Process, "web-content"}, {"skype", Process, "process-skype"}, {"unknown", Process, "process-unknown"},
		{"(sd-pam)", Process, "sd-pam"}, {"", Process, ""}, {"--", Process, ""}, {"nginx.service", Cgroup, "nginx.service"},
		{"a-very-long-name-of-a-unit-of-systemd.service", Cgroup, "a-very-long-name-of-a-unit-of-sy"},
		{"www.example.com", Name, "www.example.com"},
		{"r3---sn-abcdefgh.a.b.googlevideo.com", Name, "a.b.googlevideo.com"},
		// Names of the directory's own files.
		{"manifest.csv", Name, "name-manifest.csv"}, {"Manifest.CSV", Process, "process-manifest.csv"},
		{"manifest.csv.part", Process, "process-manifest.csv.part"}, {".dpclass-record", Process, "dpclass-record"},
		{"a-name-long-enough-to-be-cut-off-here.manifest.csv", Name, "name-manifest.csv"},
		{"averylongnamewithoutanydotinitatallxx.com", Name, "namewithoutanydotinitatallxx.com"},
	} {
		got := labelOf(test.name, test.by, flow.Category)
		if got != test.want {
			t.Errorf("%q: %q, want %q", test.name, got, test.want)
		}
		if err := CheckLabel(got, flow.Category); got != "" && err != nil {
			t.Errorf("%q: %v", test.name, err)
		}
	}
}
