// SPDX-License-Identifier: Apache-2.0

package names

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

// write writes a file to a directory of the test and returns its path.
func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads one names file with that text.
func load(t testing.TB, text string) *Catalogue {
	t.Helper()
	c, err := Load(write(t, t.TempDir(), "own", text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verdict is what a catalogue says about a name, in short.
func verdict(c *Catalogue, name string) string {
	s, ok := c.Lookup(name)
	if !ok {
		return "-"
	}
	return s.App + " " + s.Category + " " + s.Strength.String() + " by " + s.Suffix
}

func TestRules(t *testing.T) {
	c := load(t, `
# All kinds of rules.
shop      web            shop.example  SHOP.test   # with a comment
shop-api  file-transfer weak full:api.shop.example ^cdn.shop.example
shop-cam  voip           regexp:^cam-[0-9]+\.(eu|us)\.shop\.example$
shop-word background     keyword:shopword
tld       web            domain:zz
`)
	for name, want := range map[string]string{
		"shop.example":                      "shop web strong by shop.example",
		"a.b.SHOP.example.":                 "shop web strong by shop.example",
		"shop.test":                         "shop web strong by shop.test",
		"api.shop.example":                  "shop-api file-transfer weak by full:api.shop.example",
		"x.api.shop.example":                "shop web strong by shop.example",
		"x.cdn.shop.example":                "shop-api file-transfer weak by cdn.shop.example",
		"cam-12.eu.shop.example":            "shop-cam voip strong by regexp:^cam-[0-9]+\\.(eu|us)\\.shop\\.example$",
		"CAM-12.eu.shop.example":            "shop-cam voip strong by regexp:^cam-[0-9]+\\.(eu|us)\\.shop\\.example$",
		"cam-x.eu.shop.example":             "shop web strong by shop.example",
		"my-shopword.invalid":               "shop-word background strong by keyword:shopword",
		"shopword.shop.example":             "shop web strong by shop.example",
		"a.zz":                              "tld web strong by zz",
		"zz":                                "tld web strong by zz",
		"myshop.example":                    "-",
		"":                                  "-",
		".":                                 "-",
		"..":                                "-",
		"example":                           "-",
		strings.Repeat("a.", 126) + "a":     "-",
		strings.Repeat("shop.example", 100): "-",
		"\x00\xff.shop.example":             "shop web strong by shop.example",
		"ſhop.example":                      "-",
	} {
		if got := verdict(c, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	// The longest name that there is: 253 bytes.
	longest := strings.Repeat("a.", (flow.MaxName-len("shop.example"))/2) + "shop.example"
	for name, ok := range map[string]bool{longest: true, "a" + longest: true, "aa" + longest: len(longest)+2 <= flow.MaxName} {
		if _, found := c.Lookup(name); found != (ok && len(name) <= flow.MaxName) {
			t.Errorf("name of %d bytes: found %t", len(name), found)
		}
	}
	s, _ := c.Lookup("shop.example")
	if filepath.Base(s.File) != "own" || s.Line != 3 {
		t.Errorf("place %s:%d", s.File, s.Line)
	}
	s, _ = c.Lookup("youtube.com")
	if s.File != BuiltIn || s.Line == 0 {
		t.Errorf("place %s:%d", s.File, s.Line)
	}
}

func TestOverride(t *testing.T) {
	dir := t.TempDir()
	first := write(t, dir, "10-first", "own chat youtube.com\nours web example.net\nours web regexp:^r$\nours web keyword:word\nours web full:one.example")
	second := write(t, dir, "20-second", "- googlevideo.com example.net\nours voip regexp:^r$\n- no-such.example keyword:word full:one.example\nours game word.example\n- word.example")
	c, err := Load(first, second)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"www.youtube.com":   "own chat strong by youtube.com",
		"x.googlevideo.com": "-",
		"example.net":       "-",
		"r":                 "ours voip strong by regexp:^r$",
		"a-word-b":          "-",
		"one.example":       "-",
		"word.example":      "ours game strong by word.example", // a file does not remove its own rules
		"www.netflix.com":   "netflix streaming strong by netflix.com",
	} {
		if got := verdict(c, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	files := c.Files()
	want := []File{files[0], {Name: first, Rules: 5, Apps: 2, Overridden: 1}, {Name: second, Rules: 2, Apps: 1, Overridden: 1, Removed: 4}}
	if !slices.Equal(files, want) {
		t.Errorf("files %+v, want %+v", files[1:], want[1:])
	}
	var warnings []string
	for _, warning := range c.Warnings() {
		warnings = append(warnings, strings.TrimPrefix(warning.Error(), dir+"/"))
	}
	if got := strings.Join(warnings, "\n"); got != "20-second:3: removes no-such.example, which no earlier file has\n20-second:5: removes word.example, which no earlier file has" {
		t.Errorf("warnings:\n%s", got)
	}
	if !slices.Contains(c.Apps(), "ours") || slices.Contains(Default().Apps(), "ours") {
		t.Error("the lists of applications")
	}
	// The embedded catalogue is as it was.
	if got := verdict(Default(), "www.youtube.com"); got != "youtube streaming strong by youtube.com" {
		t.Errorf("the default catalogue changed: %s", got)
	}
	if c, err := Load(write(t, dir, "30-none", "solo web solo.example"), write(t, dir, "40-none", "- solo.example")); err != nil || slices.Contains(c.Apps(), "solo") {
		t.Errorf("an application without rules is listed (%v)", err)
	}
}

func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		"a":                        "1: 1 words; want at least 3|write: application category [weak] suffix...",
		"a web":                    "1: 2 words; want at least 3|write: application category [weak] suffix...",
		"\n\na web weak":           "3: there is no suffix|write: application category [weak] suffix...",
		"Ä web a.example":          `1: "Ä" is no name of an application|an application has 1 to 32 characters`,
		"unknown web a.example":    `1: "unknown" is no name of an application|an application has`,
		"a wbe a.example":          `1: unknown category "wbe"; did you mean "web"?|write one of chat, email`,
		"a vpn-voip a.example":     `1: unknown category "vpn-voip"|write voip: the network finds out`,
		"a web wek a.example":      `1: "wek" has no dot; did you mean "weak"?|a suffix has a dot; write domain:wek`,
		"a web *.a.example":        `1: "*.a.example" is no suffix|write example.com instead`,
		"a web .a.example":         `1: ".a.example" is no suffix|write example.com instead`,
		"a web a..example":         `1: "a..example" is no suffix|`,
		"a web a.example.":         `1: "a.example." ends in a dot|leave out the last dot`,
		"a web https://a.example/": `1: unknown prefix "https:"|write the host name only`,
		"a web a.example:443":      `1: unknown prefix "a.example:"|write the host name only`,
		"a web a.example/x":        `1: "a.example/x" is no name: it contains /|names consist of`,
		"a web bücher.example":     `1: "bücher.example" is not ASCII|write an international name in its form xn--`,
		"a web 10.0.0.1":           `1: "10.0.0.1" is an address|a rule of a policy can match an address`,
		"a web host:a.example":     `1: unknown prefix "host:"|the prefixes are domain:, full:, regexp:, keyword:, v2fly:`,
		"a web full:":              `1: "" is empty|write a name`,
		"a web regexp:(":           "1: error parsing regexp: missing closing ): `(`|the syntax is that of RE2",
		"a web regexp:":            "1: regular expression of 0 characters|an expression has 1 to 512",
		"a web regexp:" + strings.Repeat("a", 600): "1: regular expression of 600 characters|an expression has 1 to 512",
		"a web keyword:":                   "1: keyword of 0 characters|a keyword has 1 to 253",
		"a web a.example\nb web A.example": "2: a.example is already in line 1|remove one of the two",
		"a web keyword:b\nb web keyword:b": "2: keyword:b is already in line 1|remove one of the two",
		"a web regexp:b\n\nb web regexp:b": "3: regexp:b is already in line 1|remove one of the two",
		"a web full:a.b\n\nb web full:a.b": "3: full:a.b is already in line 1|remove one of the two",
		"-":                                "1: there is no suffix to remove|write: - suffix...",
		"-a.example":                       `1: "-a.example" is no application|write a blank after the "-"`,
		"- a_?.example":                    `1: "a_?.example" is no name: it contains ?|names consist of`,
		"a web " + strings.Repeat("a", 64) + ".example":  "has a label that is too long|a label, the text between two dots, has at most 63",
		"a web " + strings.Repeat("a.", 127) + "example": "is too long|a name has at most 253",
		"a web v2fly:":             `1: "v2fly:" names no list|write v2fly:PATH`,
		"a web v2fly:no-such/list": "no-such|write the path of a list",
		"a web v2fly:no-such-list": "no-such-list|write the name of an existing list",
		"a web v2fly:list@":        `1: "@" is no attribute|write @attribute or @-attribute`,
		"a web b.example\n\x1b[2J": "2: is no text|see docs/operations.md", "a\x00b": "1: is no text|see docs/operations.md", "a web \xff": "1: is no text|see docs",
		"a web regexp:(a{900}){900}": "1: error parsing regexp: invalid repeat count|the syntax is that of RE2", "a web regexp:(abcdef){900}": `1: the regular expression "(abcdef){900}" is too large|write smaller numbers`,
	} {
		c, err := Load(write(t, t.TempDir(), "own", text))
		if c != nil || err == nil {
			t.Errorf("%q is accepted", text)
			continue
		}
		problems := Problems(err)
		wantText, wantDo, _ := strings.Cut(want, "|")
		if len(problems) == 0 || !strings.Contains(problems[0].Error(), wantText) || !strings.Contains(problems[0].Do, wantDo) || problems[0].Do == "" {
			t.Errorf("%q: %q, want %q", text, err, want)
		}
		if filepath.Base(problems[0].File) != "own" || !strings.HasPrefix(problems[0].Error(), problems[0].File+":") {
			t.Errorf("%q: %q does not begin with the file", text, err)
		}
		if advice := fault.Advice(err); len(advice) == 0 || advice[0] != problems[0].Do {
			t.Errorf("%q: advice %q", text, advice)
		}
	}
}

func TestAllProblems(t *testing.T) {
	dir := t.TempDir()
	bad, worse, good := write(t, dir, "bad", "a wbe a.example .x\nb\nc web c.example\nd web c.example"), write(t, dir, "worse", "x"), write(t, dir, "good", "g web g.example")
	c, err := Load(bad, good, filepath.Join(dir, "missing"), dir, worse)
	if c != nil {
		t.Error("a catalogue in spite of errors")
	}
	var got []string
	for _, problem := range Problems(err) {
		got = append(got, strings.ReplaceAll(problem.Error(), dir, "DIR"))
	}
	want := []string{
		`DIR/bad:1: unknown category "wbe"; did you mean "web"?`,
		"DIR/bad:2: 1 words; want at least 3",
		"DIR/bad:4: c.example is already in line 3",
		"DIR/missing: no such file or directory",
		"DIR: is a directory",
		"DIR/worse:1: 1 words; want at least 3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// A file of another kind does not fill the memory with problems.
	_, err = Load(write(t, dir, "other", strings.Repeat("word\n", 100_000)))
	if problems := Problems(err); len(problems) != maxProblems+1 || !strings.Contains(problems[maxProblems].Text, "99900 problems more") {
		t.Errorf("%d problems, the last is %v", len(problems), problems[len(problems)-1])
	}
	if Problems(nil) != nil {
		t.Error("problems without an error")
	}
}

func TestPatternLimit(t *testing.T) {
	var text strings.Builder
	for i := range maxPatterns + 5 {
		fmt.Fprintf(&text, "a web keyword:k%dx\n", i)
	}
	_, err := Load(write(t, t.TempDir(), "own", text.String()))
	if err == nil || !strings.Contains(err.Error(), "own: more than 1000 regular expressions and keywords") {
		t.Errorf("%v", err)
	}
}

func TestTextForms(t *testing.T) {
	c := load(t, "\ufeffa web a.example\r\nb voip b.example\r\n\r\n")
	for name, want := range map[string]string{"a.example": "a web strong by a.example", "b.example": "b voip strong by b.example"} {
		if got := verdict(c, name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if c := load(t, ""); c.Len() != Default().Len() {
		t.Error("an empty file changes the catalogue")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a.txt", ".hidden", "c~", "d.rpmsave", "e.dpkg-old", "f.bak", "lists/google"} {
		write(t, dir, name, "")
	}
	files, err := Files(dir)
	if want := []string{filepath.Join(dir, "a.txt"), filepath.Join(dir, "b")}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%q, %v; want %q", files, err, want)
	}
	if files, err := Files(filepath.Join(dir, "missing")); files != nil || err != nil {
		t.Errorf("%q, %v", files, err)
	}
	if _, err := Files(filepath.Join(dir, "b")); err == nil || len(fault.Advice(err)) == 0 {
		t.Errorf("a file as directory: %v", err)
	}
}

// TestMillionRules loads and finds a million suffixes, and looks up a million names
// that are not there.
func TestMillionRules(t *testing.T) {
	const n = 1_000_000
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "app%d web s%d.example\n", i%1000, i)
	}
	c := load(t, text.String())
	if c.Len() != n+Default().Len() {
		t.Fatalf("%d rules", c.Len())
	}
	name := make([]byte, 0, 64)
	for i := range n {
		name = fmt.Appendf(name[:0], "x.s%d.example", i)
		if s, ok := c.Lookup(string(name)); !ok || s.Line != i+1 {
			t.Fatalf("%s: %v", name, s)
		}
		name = fmt.Appendf(name[:0], "x.t%d.example", i)
		if s, ok := c.Lookup(string(name)); ok {
			t.Fatalf("%s: %v", name, s)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	c := Default()
	for _, name := range []string{"a.b.c.unlisted.example", "rr3---sn-4g5e6nzs.googlevideo.com", strings.Repeat("a.", 126) + "a"} {
		if n := testing.AllocsPerRun(100, func() { c.Lookup(name) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for name, c := range map[string]*Catalogue{"builtin": Default(), "million": million(b)} {
		for _, host := range []string{"a.b.c.unlisted.example", "rr3---sn-4g5e6nzs.googlevideo.com", "www.google.com", strings.Repeat("a.", 126) + "a"} {
			label := host
			if len(host) > 100 {
				label = "127-labels"
			}
			b.Run(name+"/"+label, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					c.Lookup(host)
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := Load(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadMillion(b *testing.B) {
	path := millionFile(b)
	for b.Loop() {
		if _, err := Load(path); err != nil {
			b.Fatal(err)
		}
	}
}

func million(b *testing.B) *Catalogue {
	c, err := Load(millionFile(b))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func millionFile(b *testing.B) string {
	var text strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "app%d web s%d.example\n", i%1000, i)
	}
	return write(b, b.TempDir(), "million", text.String())
}
