// SPDX-License-Identifier: Apache-2.0

// Package names says which service a server name belongs to. It holds the catalogue: a
// list of name suffixes with an application, a category and a strength.
package names

import (
	"cmp"
	_ "embed" // the catalogue
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/dpclass/dpclass/flow"
)

// Strength says what a name is worth.
type Strength uint8

// The strengths.
const (
	Weak   Strength = iota // several kinds of service share the name: it only shows the application
	Strong                 // the name decides the category and the application
)

var strengths = [...]string{"weak", "strong"}

// String returns "weak" or "strong".
func (s Strength) String() string {
	if int(s) < len(strengths) {
		return strengths[s]
	}
	return fmt.Sprintf("strength-%d", uint8(s))
}

// MarshalText writes "weak" or "strong".
func (s Strength) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Service is what the catalogue knows about a name, and where it says so.
type Service struct {
	App      string   `json:"app"`      // application; flow.ValidName accepts it
	Category string   `json:"category"` // one of [AllowedCategories]
	Strength Strength `json:"strength"`
	Suffix   string   `json:"suffix"` // the rule that matched: a suffix, or "full:", "regexp:" or "keyword:" and its text
	File     string   `json:"file"`   // the rule's file; BuiltIn for the embedded catalogue
	Line     int      `json:"line"`   // the rule's line in the file, from 1
}

// BuiltIn is shown as the file name of the embedded catalogue.
const BuiltIn = "(built in)"

// Catalogue maps server names to services. It does not change after it was loaded, so
// several goroutines may use it at once.
type Catalogue struct {
	suffixes map[string]rule // by suffix: the name itself and all names below it
	full     map[string]rule // by name: this name only
	regexps  []pattern       // in the order in which they are tried
	keywords []pattern       // likewise
	labels   int             // the most labels that a suffix has

	kinds    []kind
	places   []string // files that rules are in
	files    []File
	warnings []*Problem
}

// kind is what rules have in common. Most rules share it with others.
type kind struct {
	app, category string
	strength      Strength
}

// rule is a line of a file: kind and place are indices of the catalogue's slices.
type rule struct {
	kind   uint32
	line   uint32
	place  uint16
	owner  uint16 // index of the names file; place is another one for a v2fly list
	marked bool   // an exception to a shorter suffix, on purpose
}

// pattern is a rule that a name has to be compared with.
type pattern struct {
	rule
	text   string // of the expression, or the keyword
	regexp *regexp.Regexp
}

// The prefixes of rules that are not suffixes.
const (
	prefixDomain  = "domain:" // a suffix, written out
	prefixFull    = "full:"
	prefixRegexp  = "regexp:"
	prefixKeyword = "keyword:"
)

// Lookup finds the service of a server name. Upper and lower case are the same, and a
// final dot does not matter. It returns false for a name that is not listed.
//
// If several rules match, the first of this list decides: the full name; a regular
// expression; the longest suffix, on whole labels; a keyword. Of several expressions
// (or keywords), those of later files come first.
func (c *Catalogue) Lookup(name string) (Service, bool) {
	name = lower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > flow.MaxName {
		return Service{}, false
	}
	if len(c.full) > 0 {
		if r, ok := c.full[name]; ok {
			return c.service(r, prefixFull, name), true
		}
	}
	for i := range c.regexps {
		if p := &c.regexps[i]; p.regexp.MatchString(name) {
			return c.service(p.rule, prefixRegexp, p.text), true
		}
	}
	for suffix, more := lastLabels(name, c.labels), true; more; _, suffix, more = strings.Cut(suffix, ".") {
		if r, ok := c.suffixes[suffix]; ok {
			return c.service(r, "", suffix), true
		}
	}
	for i := range c.keywords {
		if p := &c.keywords[i]; strings.Contains(name, p.text) {
			return c.service(p.rule, prefixKeyword, p.text), true
		}
	}
	return Service{}, false
}

// lower returns the name with ASCII letters in lower case. It copies nothing if they
// are already.
func lower(name string) string {
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			letters := []byte(name)
			for j, letter := range letters[i:] {
				if 'A' <= letter && letter <= 'Z' {
					letters[i+j] = letter + 'a' - 'A'
				}
			}
			return string(letters)
		}
	}
	return name
}

// lastLabels returns the last n labels of a name. A hostile name can have 127 of them,
// and no suffix has that many.
func lastLabels(name string, n int) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] != '.' {
			continue
		}
		if n--; n <= 0 {
			return name[i+1:]
		}
	}
	return name
}

// service returns the public form of a rule.
func (c *Catalogue) service(r rule, prefix, text string) Service {
	k := &c.kinds[r.kind]
	if prefix != "" {
		text = prefix + text
	}
	return Service{App: k.app, Category: k.category, Strength: k.strength, Suffix: text, File: c.places[r.place], Line: int(r.line)}
}

// Services returns all rules, sorted by application, category and suffix.
func (c *Catalogue) Services() []Service {
	all := make([]Service, 0, c.Len())
	for suffix, r := range c.suffixes {
		all = append(all, c.service(r, "", suffix))
	}
	for name, r := range c.full {
		all = append(all, c.service(r, prefixFull, name))
	}
	for _, p := range c.regexps {
		all = append(all, c.service(p.rule, prefixRegexp, p.text))
	}
	for _, p := range c.keywords {
		all = append(all, c.service(p.rule, prefixKeyword, p.text))
	}
	slices.SortFunc(all, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Category, b.Category), cmp.Compare(a.Suffix, b.Suffix))
	})
	return all
}

// Len returns the number of rules.
func (c *Catalogue) Len() int {
	return len(c.suffixes) + len(c.full) + len(c.regexps) + len(c.keywords)
}

// Apps returns the applications that rules name, sorted.
func (c *Catalogue) Apps() []string { return c.distinct(func(k kind) string { return k.app }) }

// Categories returns the categories that rules name, sorted.
func (c *Catalogue) Categories() []string {
	return c.distinct(func(k kind) string { return k.category })
}

// distinct returns the values of a column, of rules that still exist.
func (c *Catalogue) distinct(column func(kind) string) []string {
	used := make([]bool, len(c.kinds))
	for _, r := range c.suffixes {
		used[r.kind] = true
	}
	for _, r := range c.full {
		used[r.kind] = true
	}
	for _, p := range slices.Concat(c.regexps, c.keywords) {
		used[p.kind] = true
	}
	var values []string
	for i, k := range c.kinds {
		if used[i] {
			values = append(values, column(k))
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// File is what loading one names file did, with the v2fly lists that it names.
type File struct {
	Name       string `json:"file"`
	Rules      int    `json:"rules"`
	Apps       int    `json:"apps"`
	Overridden int    `json:"overridden"` // rules of earlier files that it replaces
	Removed    int    `json:"removed"`    // rules of earlier files that it removes
}

// Files returns the files of the catalogue in the order of loading. The first one is
// the embedded catalogue.
func (c *Catalogue) Files() []File { return slices.Clone(c.files) }

// Warnings returns lines that do nothing, such as one that removes a suffix that no
// earlier file has.
func (c *Catalogue) Warnings() []*Problem { return slices.Clone(c.warnings) }

// AllowedCategories are the categories that a name may have. The network adds the
// prefix "vpn-" of packets inside a VPN.
var AllowedCategories = slices.DeleteFunc(slices.Clone(flow.Categories), func(category string) bool {
	return flow.IsVPN(category) && category != "vpn-tunnel"
})

//go:embed catalogue.txt
var embedded string

// Default returns the embedded catalogue.
func Default() *Catalogue { return builtIn() }

var builtIn = sync.OnceValue(func() *Catalogue {
	c, err := Load()
	if err != nil {
		panic(err) // the package's tests load it
	}
	return c
})
