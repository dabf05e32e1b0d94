// SPDX-License-Identifier: Apache-2.0

package rooms

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// maxCorpora is how large all committed corpora of fuzz targets may be together, in bytes.
const maxCorpora = 300 << 10

// TestCorpora: scripts/fuzz.sh with KEEP adds to them, and every test run reads them all.
func TestCorpora(t *testing.T) {
	var size int64
	targets := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if entry != nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2 {
				return fs.SkipDir
			}
			return err
		}
		if dir := filepath.Dir(path); strings.Contains(dir, "testdata/fuzz/") {
			info, err := entry.Info()
			if err != nil {
				return err
			}
			size += info.Size()
			targets[dir] = true
		}
		return nil
	})
	if err != nil || size > maxCorpora || len(targets) < 15 {
		t.Errorf("%d bytes for %d targets, at most %d are allowed: %v", size, len(targets), maxCorpora, err)
	}
}
