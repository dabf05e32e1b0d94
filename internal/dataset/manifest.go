// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/internal/bounded"
)

// Capture is one labelled capture file, such as a row of a manifest.
type Capture struct {
	Name     string `json:"name"` // name of the capture; several files may be parts of one
	Set      string `json:"set"`
	Path     string `json:"path"` // as in the manifest
	Category string `json:"category"`
	App      string `json:"app"`
	VPN      bool   `json:"vpn"`
	Use      string `json:"use"`
	Flows    int    `json:"flows"`             // flows with payload; Build counts them
	Packets  int    `json:"packets"`           // packets in the dataset; Build counts them
	Skipped  string `json:"skipped,omitempty"` // why Build could not read it
	File     string `json:"-"`                 // path to open
}

// maxManifest is the largest manifest that is read, in bytes.
const maxManifest = 64 << 20

// useTrain marks captures for training.
const useTrain = "train"

// ReadManifest reads a CSV file with a header line. It needs the columns path, category
// and app; the columns set, vpn, capture and use are optional, others are ignored.
// Without a column use, all captures are for training. Paths are relative to root, or to
// the directory of the manifest if root is "".
func ReadManifest(name, root string) ([]Capture, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("manifest %q: %w", name, bounded.Bare(err))
	}
	defer file.Close()
	if root == "" {
		root = filepath.Dir(name)
	}

	// It may be a pipe, but not one without an end.
	text, err := bounded.ReadAll(file, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest %q: %w", name, bounded.Bare(err))
	}
	return parseManifest(name, root, text)
}

// parseManifest reads the text of a manifest; the name is for messages.
func parseManifest(name, root string, text []byte) ([]Capture, error) {
	reader := csv.NewReader(bytes.NewReader(text))
	reader.ReuseRecord = true
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("manifest %q: the file is empty, want a header line with path, category and app", name)
	}
	if err != nil {
		return nil, fmt.Errorf("manifest %q: %w", name, err)
	}
	column := map[string]int{}
	for i, field := range header {
		field = strings.TrimSpace(strings.TrimPrefix(field, "\ufeff"))
		if _, twice := column[field]; twice {
			return nil, fmt.Errorf("manifest %q: column %q appears twice", name, field)
		}
		column[field] = i
	}
	for _, field := range []string{"path", "category", "app"} {
		if _, ok := column[field]; !ok {
			return nil, fmt.Errorf("manifest %q: no column %q in the first line, want path, category and app", name, field)
		}
	}

	var captures []Capture
	seen := map[string]int{}
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %q: %w", name, err)
		}
		line, _ := reader.FieldPos(0)
		field := func(name string) string {
			if i, ok := column[name]; ok {
				return strings.TrimSpace(row[i])
			}
			return ""
		}
		entry := Capture{
			Name:     strings.Clone(field("capture")),
			Set:      strings.Clone(field("set")),
			Path:     strings.Clone(field("path")),
			Category: strings.Clone(field("category")),
			App:      strings.Clone(field("app")),
			Use:      strings.Clone(field("use")),
		}
		if entry.Path == "" {
			return nil, fmt.Errorf("manifest %q, line %d: no path", name, line)
		}
		if before, twice := seen[entry.Path]; twice {
			return nil, fmt.Errorf("manifest %q, line %d: path %q is already in line %d", name, line, entry.Path, before)
		}
		seen[entry.Path] = line
		switch vpn := field("vpn"); vpn {
		case "", "0", "false":
		case "1", "true":
			entry.VPN = true
		default:
			return nil, fmt.Errorf("manifest %q, line %d: vpn is %q, want 0 or 1", name, line, vpn)
		}
		if entry.Name == "" {
			entry.Name = entry.Path
		}
		if _, ok := column["use"]; !ok {
			entry.Use = useTrain
		}
		entry.File = entry.Path
		if !filepath.IsAbs(entry.File) {
			entry.File = filepath.Join(root, filepath.FromSlash(entry.Path))
		}
		captures = append(captures, entry)
	}
	if len(captures) == 0 {
		return nil, fmt.Errorf("manifest %q: no rows after the header line", name)
	}
	return captures, nil
}

// OfSets returns the captures of the named sets, or all captures if sets is empty. A name
// that no capture has is an error.
func OfSets(captures []Capture, sets []string) ([]Capture, error) {
	if len(sets) == 0 {
		return captures, nil
	}
	var have []string
	kept := captures[:0:0]
	for _, c := range captures {
		if slices.Contains(sets, c.Set) {
			kept = append(kept, c)
		}
		if !slices.Contains(have, c.Set) {
			have = append(have, c.Set)
		}
	}
	for _, set := range sets {
		if !slices.Contains(have, set) {
			return nil, fmt.Errorf("set %q is not in the manifest, which has %s", set, strings.Join(have, ", "))
		}
	}
	return kept, nil
}
