// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/dpclass/dpclass/internal/dataset"
)

// readManifest reads the captures of a manifest; if sets are named, only theirs.
func readManifest(file, root string, sets []string) ([]dataset.Capture, error) {
	captures, err := dataset.ReadManifest(file, root)
	if err != nil {
		return nil, err
	}
	if captures, err = dataset.OfSets(captures, sets); err != nil {
		return nil, fmt.Errorf("manifest %q: %w", file, err)
	}
	return captures, nil
}
