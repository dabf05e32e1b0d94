// SPDX-License-Identifier: Apache-2.0

package names

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// v2fly's domain-list-community has thousands of lists of names, one file each. A line
// of a list is a rule with attributes ("domain:", "full:", "regexp:", "keyword:" or a
// bare suffix, then "@attribute"), or "include:" with the name of another list and
// attributes that the included rules must have ("@x") or must not have ("@-x").
// "&list" puts a rule into another list as well; it is ignored here.
const (
	prefixList    = "v2fly:"
	prefixInclude = "include:"
)

// maxDepth limits lists that include lists.
const maxDepth = 32

// listRule is the rule "v2fly:PATH@attribute..." of a names file.
type listRule struct {
	at   place
	kind kind
	path string
}

// list adds the rules of a v2fly list. A rule that the names file has itself, or has
// from an earlier list, stays as it is.
func (l *loader) list(rule listRule) {
	// An "@" in a directory's name is no attribute.
	slash := strings.LastIndexByte(rule.path, '/') + 1
	name, attributes, filtered := strings.Cut(rule.path[slash:], "@")
	if name == "" || rule.at.file == BuiltIn {
		l.add(rule.at, "write "+prefixList+"PATH with the path of a list", "%q names no list", prefixList+rule.path)
		return
	}
	var words []string
	if filtered {
		for word := range strings.SplitSeq(attributes, "@") {
			words = append(words, "@"+word)
		}
	}
	filter, ok := l.filter(rule.at, words)
	if !ok {
		return
	}
	dir := rule.path[:slash]
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(filepath.Dir(rule.at.file), dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		l.add(rule.at, "write the path of a list; a relative one begins at the directory of this file", "%s", err.Error())
		return
	}
	defer root.Close()
	r := &listReader{loader: l, kind: rule.kind, dir: dir, lists: root.FS(), read: map[string]bool{}}
	before, problems := l.current().Rules, len(l.all)
	r.list(rule.at, name, filter)
	if l.current().Rules == before && len(l.all) == problems {
		l.c.warnings = append(l.c.warnings, &Problem{File: rule.at.file, Line: rule.at.line, Text: prefixList + rule.path + " adds no rule",
			Do: "check the attributes, and whether this file has the names already"})
	}
}

// attributes is what a rule must have, or with "-" before it must not have.
type attributes []string

// accept reports whether a rule with these attributes passes.
func (a attributes) accept(has []string) bool {
	for _, attribute := range a {
		if unwanted, not := strings.CutPrefix(attribute, "-"); slices.Contains(has, unwanted) == not {
			return false
		}
	}
	return true
}

// filter reads the attributes of an inclusion.
func (l *loader) filter(at place, words []string) (attributes, bool) {
	var filter attributes
	for _, word := range words {
		attribute, ok := strings.CutPrefix(word, "@")
		if !ok || strings.Trim(attribute, "-") == "" {
			l.add(at, "write @attribute or @-attribute", "%q is no attribute", word)
			return nil, false
		}
		filter = append(filter, attribute)
	}
	return filter, true
}

// listReader reads a list and those that it includes. They cannot leave its directory.
type listReader struct {
	*loader
	kind   kind
	dir    string
	lists  fs.FS
	active []string        // lists that are being read: each includes the next one
	read   map[string]bool // lists that were read, with their attributes
}

// list adds the rules of a list that pass the filter.
func (r *listReader) list(at place, name string, filter attributes) {
	if strings.ContainsAny(name, `/\`) || name == "." || name == ".." {
		r.add(at, "write the name of a list in the same directory", "%q is no list", name)
		return
	}
	if slices.Contains(r.active, name) {
		r.add(at, "remove one of the inclusions", "%s includes itself (%s)", name, strings.Join(append(r.active, name), " > "))
		return
	}
	if len(r.active) == maxDepth {
		r.add(at, "include fewer lists in each other", "lists that include lists, more than %d deep", maxDepth)
		return
	}
	// The order of attributes does not matter, and one is enough of each.
	slices.Sort(filter)
	filter = slices.Compact(filter)
	key := name + "@" + strings.Join(filter, "@")
	if r.read[key] {
		return
	}
	r.read[key] = true
	text, ok := r.text(at, name)
	inside := place{file: filepath.Join(r.dir, name)}
	if !ok || !r.open(at, text) {
		return
	}
	r.c.places[len(r.c.places)-1] = inside.file
	r.active = append(r.active, name)
	for line := range strings.Lines(text) {
		inside.line++
		r.line(inside, line, filter)
		if r.stopped {
			break
		}
	}
	r.active = r.active[:len(r.active)-1]
}

// text reads a list. Only regular files are read: a pipe could block.
func (r *listReader) text(at place, name string) (string, bool) {
	const advice = "write the name of an existing list"
	info, err := fs.Stat(r.lists, name)
	if err != nil {
		r.add(at, advice, "%s", err.Error())
		return "", false
	}
	if !info.Mode().IsRegular() {
		r.add(at, advice, "%s is no regular file", name)
		return "", false
	}
	file, err := r.lists.Open(name)
	if err != nil {
		r.add(at, advice, "%s", err.Error())
		return "", false
	}
	defer file.Close()
	// Root can read what others may not, and messages quote lists. A names file that comes from
	// somewhere else must not have it show them.
	if info, err = file.Stat(); os.Geteuid() == 0 && (err != nil || info.Mode()&0o004 == 0) {
		r.add(at, "lists are public data: chmod a+r it if it is one", "%s is no list for root: not everybody may read it", name)
		return "", false
	}
	text, err := readText(file, filepath.Join(r.dir, name))
	if err != nil {
		r.add(at, advice, "%s", err.Error())
		return "", false
	}
	return text, true
}

// line reads a line of a list.
func (r *listReader) line(at place, line string, filter attributes) {
	line, _, _ = strings.Cut(line, comment)
	words := strings.Fields(line)
	if len(words) == 0 {
		return
	}
	if name, include := strings.CutPrefix(words[0], prefixInclude); include {
		if more, ok := r.filter(at, words[1:]); ok {
			here := r.c.places[len(r.c.places)-1]
			r.list(at, name, slices.Concat(filter, more))
			if last := r.c.places[len(r.c.places)-1]; last != here {
				r.c.places = append(r.c.places, here) // rules that follow are in this list again
			}
		}
		return
	}
	var has []string
	for _, word := range words[1:] {
		switch attribute := word[1:]; word[0] {
		case '@':
			has = append(has, attribute)
		case '&':
		default:
			r.add(at, "write one rule a line; attributes begin with @", "%q is no attribute", word)
			return
		}
	}
	text, ok := r.anyRule(at, words[0])
	if !ok || !filter.accept(has) {
		return
	}
	r.put(text, r.newRule(at, r.kind))
}
