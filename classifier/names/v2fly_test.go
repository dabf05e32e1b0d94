// SPDX-License-Identifier: Apache-2.0

package names

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestV2fly(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "lists/shop", `
# The shop.
shop.example
domain:shop.test @cn &other
full:api.shop.example @ads @cn   # both
regexp:^cam[0-9]+\.example$
keyword:shopword @ads
include:parts @-old
include:geo-!cn @ads
shop.example # again
youtube.com &video
`)
	write(t, dir, "lists/parts", "new.example\nold.example @old\nboth.example @old @ads\ninclude:deep")
	write(t, dir, "lists/deep", "deep.example @ads\ndeep-old.example @old\ncn\n")
	write(t, dir, "lists/geo-!cn", "geo.example @ads\nno-ads.example\n")
	own := write(t, dir, "own", "own chat shop.test\nshop web weak v2fly:lists/shop\n")
	c, err := Load(own)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"shop.example":     "shop web weak by shop.example",
		"shop.test":        "own chat strong by shop.test", // the names file's own rule wins
		"api.shop.example": "shop web weak by full:api.shop.example",
		"cam1.example":     `shop web weak by regexp:^cam[0-9]+\.example$`,
		"a.shopword":       "shop web weak by keyword:shopword",
		"new.example":      "shop web weak by new.example",
		"old.example":      "-",
		"both.example":     "-",
		"deep.example":     "shop web weak by deep.example",
		"deep-old.example": "-",
		"x.cn":             "shop web weak by cn",
		"geo.example":      "shop web weak by geo.example",
		"no-ads.example":   "-",
		"youtube.com":      "shop web weak by youtube.com",
	} {
		if got := verdict(c, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"shop.example": "lists/shop:3", "deep.example": "lists/deep:1", "youtube.com": "lists/shop:11", "shop.test": "own:1"} {
		s, _ := c.Lookup(name)
		if got := strings.TrimPrefix(fmt.Sprintf("%s:%d", s.File, s.Line), dir+"/"); got != want {
			t.Errorf("%s is said by %s, want %s", name, got, want)
		}
	}
	if file := c.Files()[1]; file.Name != own || file.Overridden != 1 || file.Rules != 10 {
		t.Errorf("%+v", file)
	}
	// Attributes of the mapping, absolute paths, and a list that adds nothing.
	c, err = Load(write(t, dir, "other", "ads web v2fly:"+dir+"/lists/shop@ads@-cn\nnone web v2fly:lists/shop@none\nvideo streaming v2fly:lists/parts\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"shop.example": "-", "api.shop.example": "-", "a.shopword": "ads web strong by keyword:shopword",
		"deep.example": "ads web strong by deep.example", // the first list that has it
		"old.example":  "video streaming strong by old.example",
	} {
		if got := verdict(c, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	if w := c.Warnings(); len(w) != 1 || w[0].Line != 2 || !strings.Contains(w[0].Text, "v2fly:lists/shop@none adds no rule") {
		t.Errorf("warnings %v", w)
	}
}

func TestV2flyProblems(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "secret", "secret.example")
	for name, text := range map[string]string{
		"self": "include:self", "a": "include:b", "b": "\ninclude:c", "c": "c.example\ninclude:a",
		"up": "include:../secret", "sub": "include:dir/x", "dots": "include:..", "missing": "include:nothing", "empty": "include:",
		"word": "a.example b.example", "bad": "a.example\nhttp://a.example\n*.a.example", "attribute": "include:c x",
		"dir/x": "x.example", "nul": "a\x00",
	} {
		write(t, dir, "lists/"+name, text)
	}
	for i := range maxDepth + 5 {
		write(t, dir, fmt.Sprintf("lists/deep%d", i), fmt.Sprintf("include:deep%d", i+1))
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "lists/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("c", filepath.Join(dir, "lists/inner")); err != nil {
		t.Fatal(err)
	}
	for list, want := range map[string]string{
		"self":      "lists/self:1: self includes itself (self > self)",
		"a":         "lists/c:2: a includes itself (a > b > c > a)",
		"up":        `lists/up:1: "../secret" is no list`,
		"sub":       `lists/sub:1: "dir/x" is no list`,
		"dots":      `lists/dots:1: ".." is no list`,
		"missing":   "lists/missing:1: ",
		"empty":     `lists/empty:1: `,
		"word":      `lists/word:1: "b.example" is no attribute`,
		"bad":       `lists/bad:2: unknown prefix "http:"`,
		"attribute": `lists/attribute:1: "x" is no attribute`,
		"deep0":     "lists/deep31:1: lists that include lists, more than 32 deep",
		"link":      "own:1: ",
		"dir":       "own:1: dir is no regular file",
		"nul":       "own:1: ",
	} {
		c, err := Load(write(t, dir, "own", "x web v2fly:lists/"+list))
		problems := Problems(err)
		if c != nil || len(problems) == 0 || !strings.HasPrefix(strings.TrimPrefix(problems[0].Error(), dir+"/"), want) || problems[0].Do == "" {
			t.Errorf("%s: %v, want %s", list, err, want)
		}
	}
	if _, err := Load(write(t, dir, "own", "x web v2fly:lists/inner")); err == nil || !strings.Contains(err.Error(), "includes itself") {
		t.Errorf("a link inside of the directory is not followed: %v", err)
	}
}

// TestV2flyGrowth: 20 lists, each of which includes the next one twice, with different
// attributes, would be read a million times.
func TestV2flyGrowth(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		write(t, dir, fmt.Sprintf("l%d", i), fmt.Sprintf("n%d.example\ninclude:l%d\ninclude:l%d\ninclude:l%d @x%d\n", i, i+1, i+1, i+1, i))
	}
	write(t, dir, "l20", "last.example")
	_, err := Load(write(t, dir, "own", "x web v2fly:l0"))
	if err == nil || !strings.Contains(err.Error(), "at most 10000 files") || len(Problems(err)) != 1 {
		t.Errorf("%v", err)
	}
}

// TestV2flySecret: root shows nobody what they may not read themselves.
func TestV2flySecret(t *testing.T) {
	dir := t.TempDir()
	const content = "root:$6$not-to-be-shown:19000::\n"
	if err := os.WriteFile(filepath.Join(dir, "shadow"), []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, []byte("stolen web v2fly:shadow\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(own)
	if err == nil || os.Geteuid() == 0 && (strings.Contains(err.Error(), "not-to-be") || !strings.Contains(err.Error(), "not everybody may read it")) {
		t.Errorf("%v", err)
	}
}

func FuzzNamesFile(f *testing.F) {
	for _, seed := range []string{
		"a web a.example", "a web weak ^a.example full:b.c regexp:^x$ keyword:k\n- google.com", "a web v2fly:x@a@-b", "# x\n\na wbe .x *.y", "a web domain:x\r\n- ",
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		l := newLoader()
		l.file(filepath.Join(dir, "names"), text)
		checkLoaded(t, l)
	})
}

func FuzzV2flyList(f *testing.F) {
	f.Add("a.example @x\ninclude:b @-y", "full:b.example\ninclude:a\ninclude:c")
	f.Add("regexp:(\nkeyword:\ndomain:x", "include:../a\n&x @\n")
	f.Add("include:a @x @y\ninclude:b", "include:b @z")
	f.Fuzz(func(t *testing.T, a, b string) {
		l := newLoader()
		l.file("names", "")
		r := &listReader{loader: l, kind: kind{"x", "web", Strong}, lists: fstest.MapFS{"a": {Data: []byte(a)}, "b": {Data: []byte(b)}}, read: map[string]bool{}}
		r.list(place{"names", 1}, "a", nil)
		l.endOfFile()
		checkLoaded(t, l)
	})
}

// checkLoaded checks what holds after any input.
func checkLoaded(t *testing.T, l *loader) {
	c, err := l.done()
	if err != nil {
		for _, problem := range Problems(err) {
			if problem.File == "" || problem.Text == "" || problem.Do == "" {
				t.Errorf("problem %+v", problem)
			}
		}
		return
	}
	for suffix := range c.suffixes {
		if what, _ := checkName(suffix); what != "" {
			t.Errorf("%q %s", suffix, what)
		}
		if s, ok := c.Lookup("x." + suffix); len(suffix) < 250 && (!ok || s.Line == 0 || s.File == "") {
			t.Errorf("%q: %v", suffix, s)
		}
	}
	for name := range c.full {
		if s, ok := c.Lookup(name); !ok || s.Suffix != prefixFull+name {
			t.Errorf("%q: %v", name, s)
		}
	}
}
