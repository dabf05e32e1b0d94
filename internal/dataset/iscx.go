// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// ReadISCX lists the captures of the original UNB ISCX VPN-nonVPN 2016 release
// under dir, labelled by their file names. Files that are no captures are passed
// over. A capture whose name is not of the release is an error, unless skip is
// given: it is told of it then.
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
		if !ok {
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
		return nil, fmt.Errorf("directory %q: %w", dir, bare(err))
	}
	if skip != nil {
		for _, path := range unknown {
			skip(path)
		}
	} else if len(unknown) > 0 {
		return nil, fmt.Errorf("directory %q: %d captures have no name of the ISCX VPN-nonVPN 2016 release: %s\ntake them out, or leave them out with --skip-unknown", dir, len(unknown), few(unknown))
	}
	if len(captures) == 0 {
		if len(packed) > 0 {
			return nil, fmt.Errorf("directory %q: no captures, but %s: unpack them first", dir, few(packed))
		}
		return nil, fmt.Errorf("directory %q: no .pcap or .pcapng files of the ISCX VPN-nonVPN 2016 release", dir)
	}
	slices.SortFunc(captures, func(a, b Capture) int { return strings.Compare(a.Path, b.Path) })
	first := map[string]string{}
	for _, c := range captures {
		if before, twice := first[c.Name]; twice {
			return nil, fmt.Errorf("directory %q: capture %s is there twice: %q and %q; take one out", dir, c.Name, before, c.Path)
		}
		first[c.Name] = c.Path
	}
	return captures, nil
}

// captureName takes the extensions off the name of a capture file.
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

// few lists the first paths by their file names.
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
