// SPDX-License-Identifier: Apache-2.0

package names

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

func TestCatalogue(t *testing.T) {
	c := Default()
	for _, category := range []string{"chat", "email", "file-transfer", "streaming", "torrent", "voip", "vpn-tunnel", "web", "game", "remote", "background"} {
		if !slices.Contains(c.Categories(), category) {
			t.Errorf("no name of category %s", category)
		}
	}
	if apps := c.Apps(); len(apps) < 400 || !slices.IsSorted(apps) {
		t.Errorf("%d applications, want 400", len(apps))
	} else {
		for _, app := range apps {
			if !flow.ValidName(app) {
				t.Errorf("application %q", app)
			}
		}
	}
	if len(c.suffixes) < 1500 {
		t.Errorf("%d suffixes, want 1500", len(c.suffixes))
	}
	if len(c.Services()) != c.Len() || c.files[0].Rules != c.Len() {
		t.Errorf("%d rules are listed, %d were read, %d can be found", len(c.Services()), c.files[0].Rules, c.Len())
	}
	for _, service := range c.Services() {
		if !slices.Contains(AllowedCategories, service.Category) {
			t.Errorf("%v: category", service)
		}
		// Each rule is reachable, for the name itself and for names below it.
		for _, name := range []string{service.Suffix, "x-1.a." + service.Suffix} {
			if found, ok := c.Lookup(name); !ok || found != service {
				t.Errorf("%s: %v, want %v", name, found, service)
			}
		}
	}
}

// TestExceptions checks that a suffix below a strong one of another category or
// strength is marked, and no other one is; and that none says what a shorter one says.
func TestExceptions(t *testing.T) {
	for _, problem := range exceptions(Default()) {
		t.Error(problem)
	}
	for text, want := range map[string]string{
		"a web a.example":                                         "",
		"a web a.example\nb voip ^x.a.example":                    "",
		"a web a.example\nb voip x.a.example":                     "is an exception to a.example: write ^x.a.example",
		"a web a.example\na web weak x.a.example":                 "is an exception to a.example: write ^x.a.example",
		"a web a.example\nb web x.a.example":                      "",
		"a web weak a.example\nb voip x.a.example":                "",
		"a web weak a.example\nb voip ^x.a.example":               "is no exception: remove the ^",
		"a web ^a.example":                                        "is no exception: remove the ^",
		"a web a.example\na web x.y.a.example":                    "says what a.example says: remove it",
		"a web a.example\nb voip ^y.a.example\na web x.a.example": "says what a.example says: remove it",
	} {
		l := newLoader()
		l.file("names", text)
		c, err := l.done()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(exceptions(c), "\n"); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func exceptions(c *Catalogue) (problems []string) {
	for suffix, r := range c.suffixes {
		exception := false
		for _, shorter, more := strings.Cut(suffix, "."); more; _, shorter, more = strings.Cut(shorter, ".") {
			above, ok := c.suffixes[shorter]
			if !ok {
				continue
			}
			parent, own := c.kinds[above.kind], c.kinds[r.kind]
			exception = parent.strength == Strong && (parent.category != own.category || parent.strength != own.strength)
			if exception && !r.marked {
				problems = append(problems, suffix+" is an exception to "+shorter+": write ^"+suffix)
			}
			if parent == own {
				problems = append(problems, suffix+" says what "+shorter+" says: remove it")
			}
			break
		}
		if r.marked && !exception {
			problems = append(problems, suffix+" is no exception: remove the ^")
		}
	}
	return problems
}

// TestCatalogueOrder checks the layout that the file's first lines describe.
func TestCatalogueOrder(t *testing.T) {
	type head struct{ app, category, strength string }
	var before head
	var lastRule, section string
	sections := map[string]string{}
	for i, line := range strings.Split(embedded, "\n") {
		if len(line) > 120 || strings.ContainsAny(line, "\t\r") || line != strings.TrimRight(line, " ") {
			t.Errorf("line %d: has a tab, ends in a blank or is longer than 120", i+1)
		}
		if title, ok := strings.CutPrefix(line, "## "); ok {
			before, lastRule, section = head{}, "", title
			if _, twice := sections[title]; twice {
				t.Errorf("line %d: section %q is there twice", i+1, title)
			}
			sections[title] = ""
			continue
		}
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, comment) {
			continue
		}
		h, rules := head{words[0], words[1], strengths[Strong]}, words[2:]
		if rules[0] == strengths[Weak] {
			h.strength, rules = rules[0], rules[1:]
		}
		sections[section] = h.app
		order := cmp.Or(cmp.Compare(before.app, h.app), cmp.Compare(before.category, h.category), cmp.Compare(before.strength, h.strength))
		if order > 0 {
			t.Errorf("line %d: %v belongs before %v", i+1, h, before)
		}
		if order != 0 {
			lastRule = ""
		}
		for _, rule := range rules {
			rule = strings.TrimPrefix(rule, exceptionMark)
			if rule <= lastRule {
				t.Errorf("line %d: %s belongs before %s", i+1, rule, lastRule)
			}
			lastRule = rule
		}
		before = h
	}
	if len(sections) < 10 {
		t.Errorf("%d sections", len(sections))
	}
	for title, app := range sections {
		if app == "" {
			t.Errorf("section %q is empty", title)
		}
	}
}

// TestVerdicts checks names that people look at first.
func TestVerdicts(t *testing.T) {
	c := Default()
	for name, want := range map[string]string{
		"rr3---sn-4g5e6nzs.googlevideo.com":       "youtube streaming strong",
		"www.youtube.com":                         "youtube streaming strong",
		"ipv4-c001-fra001-ix.1.oca.nflxvideo.net": "netflix streaming strong",
		"audio-fa.scdn.co":                        "spotify streaming strong",
		"video-weaver.fra02.hls.ttvnw.net":        "twitch streaming strong",
		"vod-adaptive-ak.vimeocdn.com":            "vimeo streaming strong",
		"github.com":                              "github web strong",
		"objects.githubusercontent.com":           "github file-transfer strong",
		"archive.ubuntu.com":                      "linux-packages file-transfer strong",
		"de.archive.ubuntu.com":                   "linux-packages file-transfer strong",
		"www.ubuntu.com":                          "ubuntu web strong",
		"tlu.dl.delivery.mp.microsoft.com":        "windowsupdate file-transfer strong",
		"teams.microsoft.com":                     "teams chat strong",
		"frankfurt1234.discord.media":             "discord-signalling voip strong",
		"gateway.discord.gg":                      "discord chat strong",
		"e1.whatsapp.net":                         "whatsapp chat strong",
		"us04web.zoom.us":                         "zoom voip strong",
		"mail.google.com":                         "gmail email strong",
		"drive.google.com":                        "googledrive file-transfer strong",
		"de.wikipedia.org":                        "wikipedia web strong",
		"old.reddit.com":                          "reddit web strong",
		"v.redd.it":                               "reddit streaming strong",
		"www.paypal.com":                          "paypal web strong",
		"www.theguardian.com":                     "guardian web strong",
		"securepubads.g.doubleclick.net":          "google-ads web strong",
		"ocsp.digicert.com":                       "ocsp background strong",
		"connectivitycheck.gstatic.com":           "conncheck background strong",
		"2.debian.pool.ntp.org":                   "ntp background strong",
		"mozilla.cloudflare-dns.com":              "doh background strong",
		"mtalk.google.com":                        "fcm background strong",
		"relay-0a1b2c3d.net.anydesk.com":          "anydesk remote strong",
		"api.steampowered.com":                    "steam game strong",
		"api.nordvpn.com":                         "nordvpn vpn-tunnel strong",
		"tracker.opentrackr.org":                  "torrent torrent strong",
		"lh3.googleusercontent.com":               "google web weak",
		"www.gstatic.com":                         "google web weak",
		"scontent-fra3-1.xx.fbcdn.net":            "facebook web weak",
		"d1234.cloudfront.net":                    "aws web weak",
		"ec2-1-2-3-4.compute.amazonaws.com":       "aws web weak",
		"e1234.dscx.akamaiedge.net":               "akamai web weak",
		"prod.fastly.net":                         "fastly web weak",
		"x.azureedge.net":                         "microsoft web weak",
		"login.live.com":                          "microsoft web weak",
	} {
		s, ok := c.Lookup(name)
		if got := s.App + " " + s.Category + " " + s.Strength.String(); !ok || got != want {
			t.Errorf("%s: %q by %s (%s:%d), want %q", name, got, s.Suffix, s.File, s.Line, want)
		}
	}
	for _, name := range []string{"example.com", "notyoutube.com", "youtube.com.example", "com", flow.HiddenName, "10.0.0.1"} {
		if s, ok := c.Lookup(name); ok {
			t.Errorf("%s: %v, want nothing", name, s)
		}
	}
}

// TestLabelNames checks that an application has the name that it has as a label.
func TestLabelNames(t *testing.T) {
	apps := Default().Apps()
	for _, app := range []string{"aim", "facebook", "gmail", "hangouts", "icq", "netflix", "skype", "spotify", "torrent", "tor", "voipbuster", "vimeo", "youtube"} {
		if !slices.Contains(flow.Apps, app) || !slices.Contains(apps, app) {
			t.Errorf("%s is no label, or in no line", app)
		}
	}
}

// TestProtocolApps checks that the applications of protocols have names that the label table
// has: those of the vocabulary or of the catalogue.
func TestProtocolApps(t *testing.T) {
	apps := Default().Apps()
	for _, p := range flow.Protocols() {
		if app := p.App(); app != "" && !slices.Contains(flow.Apps, app) && !slices.Contains(apps, app) {
			t.Errorf("protocol %v decides the application %q, which is neither in flow.Apps nor in the catalogue", p, app)
		}
	}
}

// TestHeader checks that the format's description names every word of the format.
func TestHeader(t *testing.T) {
	header, _, _ := strings.Cut(embedded, "\n## ")
	for _, word := range []string{`"weak"`, exceptionMark, prefixFull, prefixRegexp, prefixKeyword, prefixList, prefixDomain, `"-"`, `"#"`} {
		if !strings.Contains(header, word) {
			t.Errorf("the description does not mention %s", word)
		}
	}
}

// TestDocumentation loads the names file that docs/operations.md shows.
func TestDocumentation(t *testing.T) {
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```\n(# application .*?)```").FindSubmatch(operations)
	if example == nil {
		t.Fatal("docs/operations.md shows no names file")
	}
	c := load(t, string(example[1]))
	if file := c.Files()[1]; file.Rules == 0 || file.Removed == 0 || len(c.Warnings()) > 0 {
		t.Errorf("the example does %+v, warnings %v", file, c.Warnings())
	}
}
