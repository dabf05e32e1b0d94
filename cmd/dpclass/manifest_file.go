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

// readManifest reads the captures of a manifest, or of a directory that has one; if sets are
// named, only theirs.
func readManifest(file, root string, sets []string) ([]dataset.Capture, error) {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		file = filepath.Join(file, manifestName)
	}
	captures, err := dataset.ReadManifest(file, root)
	if err != nil {
		return nil, err
	}
	if captures, err = dataset.OfSets(captures, sets); err != nil {
		return nil, fmt.Errorf("manifest %q: %w", file, err)
	}
	return captures, nil
}
