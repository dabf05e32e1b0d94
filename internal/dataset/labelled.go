// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bounded"
	"github.com/dpclass/dpclass/internal/fault"
)

// Label returns the capture's label for a task, or "".
func (c *Capture) Label(task flow.Task) string {
	if task == flow.App {
		return c.App
	}
	return c.Category
}

// ReadLabelled lists the captures in dir and below. The first part of a capture's path is
// its label for the task, in lower case: dir/LABEL/any/file.pcap or dir/LABEL.pcap. Other
// kinds of files are ignored. The name of the directory is the name of the set.
func ReadLabelled(dir string, task flow.Task) ([]Capture, error) {
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
		if !ok || !isFile(path, entry) {
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
		if task == flow.App {
			c.App = label
		} else {
			c.Category = label
		}
		captures = append(captures, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("directory %q: %w", dir, bounded.Bare(err))
	}
	if len(captures) == 0 {
		err := fmt.Errorf("directory %q: no captures (.pcap, .pcapng, .cap, also with .gz or .zst)", dir)
		return nil, fault.Advise(err, "put them there as LABEL/NAME.pcap or LABEL.pcap")
	}
	slices.SortFunc(captures, func(a, b Capture) int { return strings.Compare(a.Path, b.Path) })
	if first := captures[0].Label(task); !slices.ContainsFunc(captures, func(c Capture) bool { return c.Label(task) != first }) {
		err := fmt.Errorf("directory %q: %q is the only label, but a model needs two", dir, first)
		return nil, fault.Advise(err, "add captures of other traffic, in a directory next to %q", first)
	}
	return captures, nil
}

// checkOwnLabel refuses labels that no model can have. It also refuses labels that dpclass
// knows only for the other task, because policies do not accept those.
func checkOwnLabel(label string, task flow.Task) error {
	other := flow.App
	if task == flow.App {
		other = flow.Category
	}
	switch {
	case label == flow.Unknown:
		return fault.Advise(fmt.Errorf("%q cannot be a label: it is the verdict for traffic that fits no label", label),
			"put traffic without a label into \"other\"")
	case !flow.ValidName(label):
		return fault.Advise(fmt.Errorf("%q cannot be a label, want %s", label, flow.NameRule), "rename it")
	case slices.Contains(other.Labels(), label) && !slices.Contains(task.Labels(), label):
		return fault.Advise(fmt.Errorf("%q is a label for task %s", label, other), "use --task %s, or rename it", other)
	}
	return nil
}
