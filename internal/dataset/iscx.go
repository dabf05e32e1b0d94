// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/internal/bounded"
	"github.com/dpclass/dpclass/internal/fault"
)

// ReadISCX lists the captures of the original UNB ISCX VPN-nonVPN 2016 release in dir and
// below. Their file names give the labels. Other kinds of files are ignored. A capture
// with an unknown name is an error if skip is nil, else skip is called with its path.
func ReadISCX(dir string, skip func(path string)) ([]Capture, error) {
	var captures []Capture
	var unknown, packed []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return nil
		}
		name, ok := captureName(entry.Name())
		if !ok || !isFile(path, entry) {
			if strings.EqualFold(filepath.Ext(path), ".zip") {
				packed = append(packed, path)
			}
			return nil
		}
		found, known := iscxLabels(name)
		if !known {
			unknown = append(unknown, path)
			return nil
		}
		found.File = path
		if found.Path, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		captures = append(captures, found)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, bounded.Bare(err))
	}
	if skip != nil {
		for _, path := range unknown {
			skip(path)
		}
	} else if len(unknown) > 0 {
		err := fmt.Errorf("directory %q: %d captures do not belong to the ISCX VPN-nonVPN 2016 release: %s", dir, len(unknown), few(unknown))
		return nil, fault.Advise(err, "move them elsewhere, or ignore them with --skip-unknown")
	}
	if len(captures) == 0 {
		if len(packed) > 0 {
			return nil, fault.Advise(fmt.Errorf("directory %q: no captures, but %s", dir, few(packed)), "unpack the archives first")
		}
		return nil, fmt.Errorf("directory %q: no .pcap or .pcapng files of the ISCX VPN-nonVPN 2016 release", dir)
	}
	slices.SortFunc(captures, func(a, b Capture) int { return strings.Compare(a.Path, b.Path) })
	first := map[string]string{}
	for _, c := range captures {
		if before, twice := first[c.Name]; twice {
			return nil, fault.Advise(fmt.Errorf("directory %q: capture %s exists twice: %q and %q", dir, c.Name, before, c.Path), "move one of them elsewhere")
		}
		first[c.Name] = c.Path
	}
	return captures, nil
}

// captureName returns the name of a capture file without its extensions, in lower case.
// ok reports whether it is a capture at all.
func captureName(file string) (name string, ok bool) {
	name = strings.ToLower(file)
	for _, packed := range []string{".gz", ".zst"} {
		name = strings.TrimSuffix(name, packed)
	}
	for _, extension := range []string{".pcap", ".pcapng", ".cap"} {
		if rest, found := strings.CutSuffix(name, extension); found && rest != "" {
			return rest, true
		}
	}
	return "", false
}

// isFile reports whether a directory entry is a file or leads to one. Reading a named pipe
// would wait for a writer. A link that leads nowhere is reported when it is read.
func isFile(path string, entry fs.DirEntry) bool {
	if entry.Type()&fs.ModeSymlink == 0 {
		return entry.Type().IsRegular()
	}
	info, err := os.Stat(path)
	return err != nil || info.Mode().IsRegular()
}

// few lists the file names of the first few paths.
func few(paths []string) string {
	const most = 5
	var names []string
	for _, path := range paths[:min(len(paths), most)] {
		names = append(names, filepath.Base(path))
	}
	text := strings.Join(names, ", ")
	if len(paths) > most {
		text += fmt.Sprintf(" and %d more", len(paths)-most)
	}
	return text
}
