// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func writeFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadManifest(t *testing.T) {
	dir := t.TempDir()
	name := writeFile(t, filepath.Join(dir, "m.csv"), []byte("\ufeffpath,set,extra,category,app,vpn,capture,use\r\n"+
		"a/b.pcap,one,x,chat,aim,0,first,train\r\n"+
		"\"c,d.pcap\",two,y,vpn-voip,skype,1,,evaluate\r\n"))
	got, err := ReadManifest(name, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []Capture{
		{Name: "first", Set: "one", Path: "a/b.pcap", Category: "chat", App: "aim", Use: "train", File: filepath.Join(dir, "a/b.pcap")},
		{Name: "c,d.pcap", Set: "two", Path: "c,d.pcap", Category: "vpn-voip", App: "skype", VPN: true, Use: "evaluate", File: filepath.Join(dir, "c,d.pcap")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got, err = ReadManifest(name, "/root"); err != nil || got[0].File != "/root/a/b.pcap" {
		t.Errorf("%v, %v", got, err)
	}

	bare := writeFile(t, filepath.Join(dir, "bare.csv"), []byte("path,category,app\na.pcap,gaming,\n"))
	if got, err = ReadManifest(bare, ""); err != nil || got[0].Use != "train" {
		t.Errorf("without a column use: %+v, %v", got, err)
	}

	kept, err := OfSets(want, []string{"two"})
	if err != nil || len(kept) != 1 || kept[0].Set != "two" {
		t.Errorf("%v, %v", kept, err)
	}
	if _, err := OfSets(want, []string{"three"}); err == nil || !strings.Contains(err.Error(), `"three"`) {
		t.Errorf("%v", err)
	}
}

func TestReadManifestRefused(t *testing.T) {
	dir := t.TempDir()
	for text, says := range map[string]string{
		"":                                     "is empty",
		"path,category\n":                      `no column "app"`,
		"path,category,app,path\n":             "appears twice",
		"path,category,app\n":                  "no rows",
		"path,category,app\n,a,b\n":            "line 2: no path",
		"path,category,app\nx,a,b\nx,a,b\n":    "line 3: path",
		"path,category,app,vpn\nx,a,b,maybe\n": `line 2: vpn is "maybe"`,
		"path,category,app\nx,a\n":             "line 2",
		"path,category,app\n\"x,a,b\n":         "line 2",
	} {
		name := writeFile(t, filepath.Join(dir, "m.csv"), []byte(text))
		_, err := ReadManifest(name, "")
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
	if _, err := ReadManifest(filepath.Join(dir, "missing"), ""); err == nil {
		t.Error("a missing manifest is no error")
	}
}

// A manifest may be a pipe, but not one without an end.
func TestManifestLimit(t *testing.T) {
	if _, err := ReadManifest("/dev/zero", ""); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("%v", err)
	}
	if _, err := ReadManifest(t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("%v", err)
	}
}
