// SPDX-License-Identifier: Apache-2.0

package names

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dpclass/dpclass/internal/fault"
)

// Limits of what is read. A list of all of the world's ad servers fits in easily.
const (
	maxFile     = 256 << 20 // bytes of one file
	maxFiles    = 10_000    // files, lists included
	maxLines    = 8 << 20   // lines of all files; a list counts each time that it is read
	maxPatterns = 1_000     // regular expressions and keywords: a name is compared with each
	maxPattern  = 512       // bytes of one of them
	maxProgram  = 4_096     // instructions of an expression: "(abcdef){1000}" is short, its program is not
)

// Load returns the embedded catalogue with the rules of names files added, in this
// order: a later file replaces and removes rules of earlier ones. The format is
// described in catalogue.txt.
//
// Load returns either a catalogue with all files or an error: [errors.Join] of all
// problems, each with file, line and advice.
func Load(files ...string) (*Catalogue, error) {
	l := newLoader()
	l.file(BuiltIn, embedded)
	for _, file := range files {
		text, err := readFile(file)
		if err != nil {
			l.problems.all = append(l.problems.all, err)
			continue
		}
		l.file(file, text)
	}
	return l.done()
}

// Files returns the names files of a directory in the order of their names. It leaves
// out directories, hidden files and leftovers of editors and package managers. A
// directory that does not exist has no files.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Advise(err, "make %s readable, or use another directory", dir)
	}
	var files []string
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		// Load reports a link that leads nowhere.
		if info, err := os.Stat(path); !leftover(entry.Name()) && (err != nil || info.Mode().IsRegular()) {
			files = append(files, path)
		}
	}
	return files, nil
}

// leftover reports whether a file in a directory of names files should not be read.
func leftover(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.Contains(name, ".dpkg-") {
		return true
	}
	return slices.Contains([]string{".bak", ".orig", ".rpmnew", ".rpmsave", ".swp"}, filepath.Ext(name))
}

// readFile reads a names file, which may also be a pipe.
func readFile(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", &Problem{File: path, Text: cause(err), Do: "give the path of a names file"}
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return "", &Problem{File: path, Text: "is a directory", Do: "name the files in it"}
	}
	return readText(file, path)
}

// readText reads all of a text file.
func readText(file io.Reader, path string) (string, error) {
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return "", &Problem{File: path, Text: cause(err), Do: "make it readable"}
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	if len(data) > maxFile {
		return "", &Problem{File: path, Text: "is larger than 256 MiB", Do: "keep only the names that matter"}
	}
	if i := strings.IndexFunc(text, forbidden); i >= 0 {
		return "", &Problem{File: path, Line: strings.Count(text[:i], "\n") + 1, Text: "is no text: it has control characters or is not UTF-8",
			Do: "see docs/operations.md for the format"}
	}
	return text, nil
}

// forbidden reports whether a character must not be in a file. Problems quote the file,
// and a terminal obeys control characters.
func forbidden(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
}

// cause returns the text of an error without the path, which a problem has already.
func cause(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

// loader fills a catalogue.
type loader struct {
	problems
	c       *Catalogue
	kinds   map[kind]uint32
	opened  int             // files
	lines   int             // of all files
	stopped bool            // after a limit was reached
	apps    map[string]bool // of the current file
	lists   []listRule      // v2fly lists of the current file
	regexps []pattern       // of the current file
	keys    []pattern       // keywords of the current file
}

func newLoader() *loader {
	return &loader{
		c:     &Catalogue{suffixes: map[string]rule{}, full: map[string]rule{}},
		kinds: map[kind]uint32{},
	}
}

// done returns the catalogue if there was no problem.
func (l *loader) done() (*Catalogue, error) {
	if err := l.err(); err != nil {
		return nil, err
	}
	for suffix := range l.c.suffixes {
		l.c.labels = max(l.c.labels, strings.Count(suffix, ".")+1)
	}
	return l.c, nil
}

// file adds a names file. What it removes goes first, then come its own rules, then
// the v2fly lists that it names.
func (l *loader) file(name, text string) {
	if !l.open(place{file: name}, text) {
		return
	}
	l.c.files = append(l.c.files, File{Name: name})
	l.apps, l.lists, l.regexps, l.keys = map[string]bool{}, nil, nil, nil
	var removals []removal
	at := place{file: name}
	for line := range strings.Lines(text) {
		at.line++
		if removed := l.line(at, line); removed != nil {
			removals = append(removals, removal{at, removed})
		}
		if l.stopped {
			return
		}
	}
	for _, list := range l.lists {
		l.list(list)
	}
	for _, removal := range removals {
		l.remove(removal)
	}
	l.endOfFile()
}

// endOfFile puts the file's patterns before those of earlier files.
func (l *loader) endOfFile() {
	l.c.regexps = l.patterns(l.regexps, l.c.regexps)
	l.c.keywords = l.patterns(l.keys, l.c.keywords)
	l.checkPatterns(l.c.regexps, l.c.keywords)
	l.current().Apps = len(l.apps)
}

// checkPatterns stops if there are too many patterns.
func (l *loader) checkPatterns(regexps, keywords []pattern) {
	if len(regexps)+len(keywords) > maxPatterns && !l.stopped {
		l.stopped = true
		l.add(place{file: l.current().Name}, "write suffixes instead: every name is compared with every expression",
			"more than %d regular expressions and keywords", maxPatterns)
	}
}

// open counts a file and its lines against the limits, and notes it as the place of
// the rules that follow.
func (l *loader) open(at place, text string) bool {
	l.opened++
	l.lines += strings.Count(text, "\n") + 1
	if !l.stopped && (l.opened > maxFiles || l.lines > maxLines) {
		l.stopped = true
		l.add(at, "keep only the names that matter", "%d files with %d lines; at most %d files with %d lines are allowed", l.opened, l.lines, maxFiles, maxLines)
	}
	if l.stopped {
		return false
	}
	l.c.places = append(l.c.places, at.file)
	return true
}

// current is the names file that is being read.
func (l *loader) current() *File { return &l.c.files[len(l.c.files)-1] }

// kind returns the number of a kind.
func (l *loader) kind(k kind) uint32 {
	number, ok := l.kinds[k]
	if !ok {
		number = uint32(len(l.c.kinds))
		l.kinds[k] = number
		l.c.kinds = append(l.c.kinds, k)
	}
	return number
}

// newRule returns a rule at a line of the file that was opened last.
func (l *loader) newRule(at place, k kind) rule {
	l.apps[k.app] = true
	return rule{kind: l.kind(k), line: uint32(at.line), place: uint16(len(l.c.places) - 1), owner: uint16(len(l.c.files) - 1)}
}

// put adds a rule to the catalogue. It returns the rule of the same file that is in
// its way, if there is one.
func (l *loader) put(text ruleText, r rule) (rule, bool) {
	var table map[string]rule
	switch text.prefix {
	case prefixRegexp:
		return l.putPattern(&l.regexps, pattern{rule: r, text: text.text, regexp: text.regexp})
	case prefixKeyword:
		return l.putPattern(&l.keys, pattern{rule: r, text: text.text})
	case prefixFull:
		table = l.c.full
	default:
		table = l.c.suffixes
	}
	before, ok := table[text.text]
	if ok && before.owner == r.owner {
		return before, true
	}
	if ok {
		l.current().Overridden++
	}
	l.current().Rules++
	table[text.text] = r
	return rule{}, false
}

func (l *loader) putPattern(list *[]pattern, p pattern) (rule, bool) {
	if i := find(*list, p.text); i >= 0 {
		return (*list)[i].rule, true
	}
	*list = append(*list, p)
	l.current().Rules++
	l.checkPatterns(l.regexps, l.keys)
	return rule{}, false
}

// find returns the index of a pattern, or -1.
func find(list []pattern, text string) int {
	return slices.IndexFunc(list, func(p pattern) bool { return p.text == text })
}

// patterns returns the patterns of the current file, then those of earlier files that
// it does not replace.
func (l *loader) patterns(own, earlier []pattern) []pattern {
	kept := slices.DeleteFunc(slices.Clone(earlier), func(p pattern) bool { return find(own, p.text) >= 0 })
	l.current().Overridden += len(earlier) - len(kept)
	return append(own, kept...)
}

// removal is a line that removes rules of earlier files.
type removal struct {
	at    place
	rules []ruleText
}

// remove removes rules. Those of the same file stay, so that a file can remove a rule
// and write it in another way.
func (l *loader) remove(r removal) {
	owner := uint16(len(l.c.files) - 1)
	for _, text := range r.rules {
		removed := false
		drop := func(list *[]pattern) {
			if i := find(*list, text.text); i >= 0 {
				*list, removed = slices.Delete(*list, i, i+1), true
			}
		}
		switch text.prefix {
		case prefixRegexp:
			drop(&l.c.regexps)
		case prefixKeyword:
			drop(&l.c.keywords)
		default:
			table := l.c.suffixes
			if text.prefix == prefixFull {
				table = l.c.full
			}
			if before, ok := table[text.text]; ok && before.owner != owner {
				delete(table, text.text)
				removed = true
			}
		}
		if removed {
			l.current().Removed++
			continue
		}
		l.c.warnings = append(l.c.warnings, &Problem{File: r.at.file, Line: r.at.line, Text: "removes " + text.String() + ", which no earlier file has",
			Do: "leave it out, or see \"dpclass names lookup\" for the suffix that decides"})
	}
}

// ruleText is a rule as it is written.
type ruleText struct {
	prefix string // "" for a suffix
	text   string
	regexp *regexp.Regexp
	marked bool
}

// String returns the rule as [Service] has it.
func (r ruleText) String() string { return r.prefix + r.text }
