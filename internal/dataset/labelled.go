// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
)

// The tasks that captures can be labelled for.
const (
	TaskCategory = "category"
	TaskApp      = "app"
)

// Label is the capture's label for a task, "" where it has none.
func (c *Capture) Label(task string) string {
	if task == TaskApp {
		return c.App
	}
	return c.Category
}

// ReadLabelled lists the captures under dir, labelled for the task by the first
// part of their path below it, in lower case: dir/LABEL/any/file.pcap, or
// dir/LABEL.pcap. Files that are no captures are passed over. The set is called
// as the directory.
func ReadLabelled(dir, task string) ([]Capture, error) {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, err)
	}
	var captures []Capture
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, ok := captureName(entry.Name())
		if !ok {
			return nil
		}
		below, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		label := name
		if first, _, inside := strings.Cut(below, string(filepath.Separator)); inside {
			label = strings.ToLower(first)
		}
		if err := checkOwnLabel(label, task); err != nil {
			return fmt.Errorf("%q: %w", below, err)
		}
		c := Capture{Name: below, Set: filepath.Base(whole), Path: below, VPN: flow.IsVPN(label), Use: useTrain, File: path}
		if task == TaskApp {
			c.App = label
		} else {
			c.Category = label
		}
		captures = append(captures, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, bare(err))
	}
	if len(captures) == 0 {
		return nil, fmt.Errorf("directory %q: no captures (.pcap, .pcapng, .cap, also .gz and .zst)\nput them in as LABEL/NAME.pcap or LABEL.pcap", dir)
	}
	slices.SortFunc(captures, func(a, b Capture) int { return strings.Compare(a.Path, b.Path) })
	if first := captures[0].Label(task); !slices.ContainsFunc(captures, func(c Capture) bool { return c.Label(task) != first }) {
		return nil, fmt.Errorf("directory %q: %q is the only label; a model needs two\nput captures of something else into another directory beside it", dir, first)
	}
	return captures, nil
}

// checkOwnLabel refuses a label that no model can have, and one that dpclass knows
// as a label of the other task alone: policies would not take it.
func checkOwnLabel(label, task string) error {
	own, other, fixed := flow.Categories, TaskApp, flow.Apps
	if task == TaskApp {
		own, other, fixed = flow.Apps, TaskCategory, flow.Categories
	}
	switch {
	case label == flow.Unknown:
		return fmt.Errorf("%q is the verdict on what fits no label, and cannot be one\ntraffic of no label goes into \"other\"", label)
	case !flow.ValidName(label):
		return fmt.Errorf("%q cannot be a label\nrename it: %s", label, flow.NameRule)
	case slices.Contains(fixed, label) && !slices.Contains(own, label):
		return fmt.Errorf("%q has a meaning as %s\nuse --task %s, or rename it", label, other, other)
	}
	return nil
}
