// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bounded"
	"github.com/dpclass/dpclass/internal/fault"
)

// By says what the label of a flow comes from.
type By string

// The sources of labels.
const (
	Process By = "process" // the name of the process that opened the socket
	Cgroup  By = "cgroup"  // its systemd unit, slice or container
	Name    By = "name"    // the server's name
)

// Sources lists the sources of labels.
func Sources() []string { return []string{string(Process), string(Cgroup), string(Name)} }

// leaveOut is the label of flows that are not recorded.
const leaveOut = "-"

// Map says which names have which label. The zero value leaves all names as they are.
type Map struct {
	rules []mapRule
}

type mapRule struct {
	pattern, label string
}

// maxMap is the largest map file that is read, in bytes.
const maxMap = 1 << 20

// MapHelp documents the file for --help.
const MapHelp = `The file of --map gives names their labels, a line each; the first pattern that fits
decides, and a name that no pattern fits keeps its own name:
  # PATTERN: LABEL         * matches any characters, ? matches one
  firefox: web
  "chrom*": web
  *.zoom.us: voip          with --by name, zoom.us means this name and all below it
  "app-*.scope": desktop   with --by cgroup: the short name, or the whole path
  backup.service: backup
  sshd: -                  - leaves the traffic out
It is YAML, except that a pattern may begin with * without quotes.`

// ReadMap reads a map file. The labels are for the task.
func ReadMap(name string, task flow.Task) (*Map, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("map %q: %w", name, bounded.Bare(err))
	}
	defer file.Close()
	text, err := bounded.ReadAll(file, maxMap)
	if err != nil {
		return nil, fmt.Errorf("map %q: %w", name, bounded.Bare(err))
	}
	m := &Map{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		number++
		rule, ok, err := parseMapLine(line)
		if err == nil && ok && rule.label != leaveOut {
			err = CheckLabel(rule.label, task)
		}
		if err != nil {
			return nil, fmt.Errorf("map %q, line %d: %w", name, number, err)
		}
		if !ok {
			continue
		}
		for _, before := range m.rules {
			if before.pattern == rule.pattern {
				return nil, fmt.Errorf("map %q, line %d: the pattern %q is there twice", name, number, rule.pattern)
			}
		}
		m.rules = append(m.rules, rule)
	}
	if len(m.rules) == 0 {
		return nil, fault.Advise(fmt.Errorf("map %q: no lines PATTERN: LABEL", name), "write one such as: firefox: web")
	}
	return m, nil
}

// parseMapLine reads a line; ok is false for an empty one.
func parseMapLine(line string) (rule mapRule, ok bool, err error) {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") || line == "---" {
		return rule, false, nil
	}
	bad := fault.Advise(fmt.Errorf("%q is not PATTERN: LABEL", line), `write one pair in a line, such as: firefox: web`)
	pattern, rest, ok := cutQuoted(line)
	if !ok {
		var found bool
		// With a blank: a pattern may have colons of its own.
		if pattern, rest, found = strings.Cut(line, ": "); !found || strings.ContainsAny(line[:1], `"'`) {
			return rule, false, bad
		}
	} else if rest, ok = strings.CutPrefix(strings.TrimSpace(rest), ":"); !ok {
		return rule, false, bad
	}
	rest = strings.TrimSpace(rest)
	label, after, quoted := cutQuoted(rest)
	if !quoted {
		label, after, _ = strings.Cut(rest, " ")
	}
	if after = strings.TrimSpace(after); after != "" && !strings.HasPrefix(after, "#") {
		return rule, false, bad
	}
	rule = mapRule{strings.ToLower(strings.TrimSpace(pattern)), label}
	if rule.pattern == "" || rule.label == "" || strings.HasPrefix(rule.label, "#") {
		return rule, false, bad
	}
	return rule, true, nil
}

// cutQuoted cuts off a text in quotes.
func cutQuoted(s string) (inside, rest string, ok bool) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		return "", s, false
	}
	inside, rest, ok = strings.Cut(s[1:], s[:1])
	return inside, rest, ok
}

// find returns the label of the first pattern that fits one of the names. With domains, a
// pattern without wildcards is a suffix.
func (m *Map) find(domains bool, names ...string) (label string, ok bool) {
	if m == nil {
		return "", false
	}
	for _, rule := range m.rules {
		for _, name := range names {
			if rule.fits(strings.ToLower(name), domains) {
				return rule.label, true
			}
		}
	}
	return "", false
}

func (r *mapRule) fits(name string, domains bool) bool {
	if glob(r.pattern, name) {
		return true
	}
	return domains && !strings.ContainsAny(r.pattern, "*?") && strings.HasSuffix(name, "."+r.pattern)
}

// glob reports whether a pattern fits a whole name: * matches any characters, ? matches one.
func glob(pattern, name string) bool {
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// CheckLabel refuses what cannot be a label for a task.
func CheckLabel(label string, task flow.Task) error {
	other := flow.App
	if task == flow.App {
		other = flow.Category
	}
	switch {
	case label == flow.Unknown:
		return fault.Advise(fmt.Errorf("%q cannot be a label: it is the verdict for traffic that fits no label", label), `use "other"`)
	case !flow.ValidName(label):
		return fault.Advise(fmt.Errorf("%q cannot be a label, want %s", label, flow.NameRule), "rename it")
	case slices.Contains(ownNames, label):
		return fault.Advise(fmt.Errorf("%q cannot be a label: the directory has a file of that name", label), "rename it")
	case isLabel(label, other) && !isLabel(label, task):
		return fault.Advise(fmt.Errorf("%q is a label for task %s", label, other), "use --task %s, or another label", other)
	}
	return nil
}

func isLabel(label string, task flow.Task) bool {
	for _, known := range task.Labels() {
		if known == label {
			return true
		}
	}
	return false
}

// maxLabel is the length of the longest label, see flow.NameRule.
const maxLabel = 32

// labelOf makes a label of a name: in lower case, with - for what a label cannot have. Of a
// name that is too long, the end stays if it is a server's, else the beginning. A name that
// CheckLabel refuses, such as a label for the other task, gets its source in front. The result is "" if nothing is left.
func labelOf(name string, by By, task flow.Task) string {
	clean := []byte(strings.ToLower(name))
	for i, c := range clean {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			clean[i] = '-'
		}
	}
	label := string(clean)
	if by == Name && len(label) > maxLabel {
		label = label[len(label)-maxLabel:]
		if dot := strings.IndexByte(label, '.'); dot >= 0 && strings.Contains(label[dot+1:], ".") {
			label = label[dot+1:] // whole parts of the name
		}
	}
	label = strings.Trim(label, "-._")
	if label = label[:min(len(label), maxLabel)]; label == "" {
		return ""
	}
	if CheckLabel(label, task) != nil {
		label = (string(by) + "-" + label)
		label = label[:min(len(label), maxLabel)]
	}
	return label
}
