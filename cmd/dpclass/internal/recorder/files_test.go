// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/capture"
)

// open prepares a directory as a run does.
func open(dir string) (*files, error) {
	f, err := openFiles(dir, "eth0-20261127T000000")
	if err == nil {
		f.linkType = capture.LinkRaw
		f.header = capture.AppendHeader(nil, "dpclass record", "eth0", f.linkType, 0)
	}
	return f, err
}

// fill writes a packet for a label, so that the manifest has a row for it.
func (f *files) fill(t *testing.T, name string) *label {
	t.Helper()
	l, err := f.label(name)
	if err == nil {
		err = f.write(l, time.Now(), make([]byte, 40), 40)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Packets, l.Payload, l.PayloadFlows = l.Packets+1, l.Payload+1, 1
	return l
}

func (f *files) finish() error { return f.close(Process, flow.Category, false) }

// kill lets go of a directory as a run that is killed does.
func (f *files) kill(t *testing.T) {
	t.Helper()
	for _, one := range []interface{ Close() error }{f.lock, f.root} {
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// rows returns the rows of a manifest, without its header.
func rows(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[0] != strings.Join(columns, ",") {
		t.Fatalf("the manifest begins with %q", lines[0])
	}
	return lines[1:]
}

// No row is lost when runs follow each other at once.
func TestRunsFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recorded")
	const writers, each = 6, 20
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				f, err := open(dir)
				for err != nil && strings.Contains(err.Error(), "another dpclass record writes to it") {
					f, err = open(dir)
				}
				if err != nil {
					t.Error(err)
					return
				}
				f.fill(t, "web")
				if err := f.finish(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := len(rows(t, dir)); n != writers*each {
		t.Errorf("%d rows of %d runs", n, writers*each)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
}

// A directory in which the first run was killed can be used again, at whatever time that was.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recorded")
	f, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.fill(t, "web")
	if err := f.flushAll(); err != nil {
		t.Fatal(err)
	}
	f.kill(t)
	if f, err = open(dir); err != nil {
		t.Fatal(err)
	}
	f.fill(t, "web")
	if err := f.finish(); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, dir); len(got) != 1 || !strings.HasPrefix(got[0], "web/eth0-20261127T000000-2.pcapng,") {
		t.Errorf("%q, want the second run", got)
	}

	// Before it had written the header.
	dir = t.TempDir()
	for _, name := range []string{reserveName, partName} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f, err = open(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.finish(); err != nil {
		t.Fatal(err)
	}
}

// Who owns the directory of a recording cannot make it write or cut a file elsewhere.
func TestLinks(t *testing.T) {
	secret := []byte("not to be changed\n")
	for _, test := range []struct {
		name string
		// put puts a link to the file where a recording writes; own is its capture, which is
		// closed for the moment.
		put  func(t *testing.T, dir, own, file string)
		says string
	}{
		{"directory of a label", func(t *testing.T, dir, _, file string) {
			link(t, os.Symlink, filepath.Dir(file), filepath.Join(dir, "mail"))
		}, "path escapes from parent"},
		{"capture", func(t *testing.T, _, own, file string) { link(t, os.Symlink, file, own) }, "path escapes from parent"},
		{"capture, hard link", func(t *testing.T, _, own, file string) { link(t, os.Link, file, own) }, "somebody has replaced web/eth0-"},
		{"manifest", func(t *testing.T, dir, _, file string) { link(t, os.Symlink, file, filepath.Join(dir, manifestName)) }, ""},
		{"manifest that is written", func(t *testing.T, dir, _, file string) { link(t, os.Symlink, file, filepath.Join(dir, partName)) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, file := filepath.Join(t.TempDir(), "recorded"), filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(file, secret, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			web := f.fill(t, "web")
			if err := f.flush(web); err != nil {
				t.Fatal(err)
			}
			for n := range maxOpen { // so many files that this one is closed
				f.fill(t, "other-"+strings.Repeat("x", n%16)+strings.Repeat("y", n/16))
			}
			if web.file != nil {
				t.Fatal("the capture is open")
			}
			test.put(t, dir, filepath.Join(dir, web.path), file)
			_, mail := f.label("mail")
			f.fill(t, "web")
			web = f.labels["web"]
			err = f.flush(web)
			if mail != nil {
				err = mail
			}
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v, want %q", err, test.says)
			}
			_ = f.finish()
			unchanged(t, file, secret)
			if names, err := os.ReadDir(filepath.Dir(file)); err != nil || len(names) != 1 {
				t.Errorf("files next to it: %v %v", names, err)
			}
		})
	}
	for _, how := range []func(string, string) error{os.Symlink, os.Link} {
		dir, file := t.TempDir(), filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, secret, 0o600); err != nil {
			t.Fatal(err)
		}
		link(t, how, file, filepath.Join(dir, reserveName))
		if _, err := open(dir); err == nil {
			t.Error("a link as the lock")
		}
		unchanged(t, file, secret)
	}
}

// link puts a link in the place of what is there.
func link(t *testing.T, how func(string, string) error, to, at string) {
	t.Helper()
	if err := os.Remove(at); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := how(to, at); err != nil {
		t.Fatal(err)
	}
}

func unchanged(t *testing.T, file string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has changed: %d bytes, %v", len(got), err)
	}
}
