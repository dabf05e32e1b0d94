// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// target is where a link of Markdown, or a picture, points to.
var target = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)|src="([^"]+)"`)

// TestInstalledDocuments: what "make install" installs has its pictures, and every link leads to a file.
func TestInstalledDocuments(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(makefile), "\tscripts/install-docs.sh $(DESTDIR)$(PREFIX)/share/doc/dpclass\n") {
		t.Error("make install does not run scripts/install-docs.sh")
	}
	dir := t.TempDir()
	if out, err := exec.Command("../../scripts/install-docs.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pages, pictures := 0, 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		pages++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, match := range target.FindAllStringSubmatch(string(text), -1) {
			link := match[1] + match[2]
			if strings.Contains(link, ":") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), link)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if ext := filepath.Ext(link); ext == ".svg" || ext == ".png" {
				pictures++
			}
		}
		return nil
	})
	if err != nil || pages < 8 || pictures < 8 {
		t.Errorf("%d pages, %d pictures: %v", pages, pictures, err)
	}
}
