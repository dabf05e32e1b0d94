// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/dpclass/dpclass/internal/dataset"
)

// manifestName is what dpclass record and dplab traffic call their manifests.
const manifestName = "manifest.csv"

// manifestOf returns the manifest that an argument means: the file, or that of a directory.
func manifestOf(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, manifestName)
	}
	return path
}

// readManifest reads the captures of a manifest, or of a directory that has one; if sets are
// named, only theirs.
func readManifest(file, root string, sets []string) ([]dataset.Capture, error) {
	file = manifestOf(file)
	captures, err := dataset.ReadManifest(file, root)
	if err != nil {
		return nil, err
	}
	if captures, err = dataset.OfSets(captures, sets); err != nil {
		return nil, fmt.Errorf("manifest %q: %w", file, err)
	}
	return captures, nil
}

// readManifests reads the captures of several manifests. Their paths become absolute,
// because relative ones start from different directories.
func readManifests(files []string, root string, sets []string) ([]dataset.Capture, error) {
	var all []dataset.Capture
	seen := map[string]string{}
	for _, file := range files {
		file = manifestOf(file)
		captures, err := dataset.ReadManifest(file, root)
		if err != nil {
			return nil, err
		}
		for _, c := range captures {
			if c.Path, err = filepath.Abs(c.File); err != nil {
				return nil, fmt.Errorf("manifest %q: %w", file, err)
			}
			if before, twice := seen[c.Path]; twice {
				return nil, fmt.Errorf("manifest %q: capture %q is already in manifest %q", file, c.Path, before)
			}
			seen[c.Path] = file
			all = append(all, c)
		}
	}
	all, err := dataset.OfSets(all, sets)
	if err != nil {
		return nil, fmt.Errorf("manifests %q: %w", files, err)
	}
	return all, nil
}
