// SPDX-License-Identifier: Apache-2.0

package names

import (
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/near"
)

// Words of the format.
const (
	removeMark    = "-" // first word of a line that removes rules
	exceptionMark = "^" // first character of a suffix that is an exception to a shorter one
	comment       = "#"
)

const lineAdvice = "write: application category [weak] suffix..."

// line reads one line of a names file. It returns the rules that the line removes.
func (l *loader) line(at place, text string) []ruleText {
	text, _, _ = strings.Cut(text, comment)
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil
	}
	if strings.HasPrefix(words[0], removeMark) {
		return l.removalLine(at, words)
	}
	if len(words) < 3 {
		l.add(at, lineAdvice, "%d words; want at least 3", len(words))
		return nil
	}
	k, rest, ok := l.columns(at, words)
	if !ok {
		return nil
	}
	for _, word := range rest {
		if path, isList := strings.CutPrefix(word, prefixList); isList {
			l.lists = append(l.lists, listRule{at: at, kind: k, path: path})
			continue
		}
		text, ok := l.rule(at, word)
		if !ok {
			continue
		}
		r := l.newRule(at, k)
		r.marked = text.marked
		if before, twice := l.put(text, r); twice {
			l.add(at, "remove one of the two", "%s is already in line %d", text, before.line)
		}
	}
	return nil
}

// removalLine reads the line "- RULE...".
func (l *loader) removalLine(at place, words []string) []ruleText {
	if words[0] != removeMark {
		l.add(at, "write a blank after the \"-\"", "%q is no application", words[0])
		return nil
	}
	if len(words) == 1 {
		l.add(at, "write: - suffix...", "there is no suffix to remove")
		return nil
	}
	var rules []ruleText
	for _, word := range words[1:] {
		if rule, ok := l.rule(at, word); ok {
			rules = append(rules, rule)
		}
	}
	return rules
}

// columns reads application, category and strength, and returns the remaining words.
func (l *loader) columns(at place, words []string) (k kind, rest []string, ok bool) {
	k, ok = kind{app: words[0], category: words[1], strength: Strong}, true
	rest = words[2:]
	if !flow.ValidName(k.app) || k.app == flow.Unknown {
		ok = false
		l.add(at, "an application has "+flow.NameRule, "%q is no name of an application", k.app)
	}
	if !slices.Contains(AllowedCategories, k.category) {
		ok = false
		do := "write one of " + strings.Join(AllowedCategories, ", ")
		if inner, isVPN := strings.CutPrefix(k.category, "vpn-"); isVPN && slices.Contains(AllowedCategories, inner) {
			do = "write " + inner + ": the network finds out what is inside a VPN"
		}
		l.add(at, do, "unknown category %q%s", k.category, near.Hint(k.category, AllowedCategories))
	}
	if i := slices.Index(strengths[:], rest[0]); i >= 0 {
		k.strength, rest = Strength(i), rest[1:]
	}
	if len(rest) == 0 {
		ok = false
		l.add(at, lineAdvice, "there is no suffix")
	}
	return k, rest, ok
}

// rule reads one rule of a names file.
func (l *loader) rule(at place, word string) (ruleText, bool) {
	suffix, marked := strings.CutPrefix(word, exceptionMark)
	text, ok := l.anyRule(at, suffix)
	text.marked = marked
	if ok && text.prefix == "" && !strings.Contains(text.text, ".") && !strings.HasPrefix(suffix, prefixDomain) {
		l.add(at, "a suffix has a dot; write "+prefixDomain+text.text+" for all names below this top-level domain",
			"%q has no dot%s", text.text, near.Hint(text.text, strengths[:]))
		return text, false
	}
	return text, ok
}

// anyRule reads a rule in the syntax that names files and v2fly lists share.
func (l *loader) anyRule(at place, word string) (ruleText, bool) {
	prefix, text, found := strings.Cut(word, ":")
	if !found {
		prefix, text = "", word
	} else {
		prefix += ":"
	}
	switch prefix {
	case prefixRegexp, "regex:":
		return l.expression(at, text)
	case prefixKeyword:
		text = lower(text)
		if text == "" || len(text) > maxPattern {
			l.add(at, "a keyword has 1 to 253 characters", "keyword of %d characters", len(text))
			return ruleText{}, false
		}
		return ruleText{prefix: prefixKeyword, text: text}, true
	case "", prefixDomain:
		prefix = ""
	case prefixFull:
	default:
		do := "the prefixes are " + strings.Join([]string{prefixDomain, prefixFull, prefixRegexp, prefixKeyword, prefixList}, ", ")
		if strings.Trim(text, "0123456789") == "" || strings.HasPrefix(text, "//") {
			do = "write the host name only, without scheme, port and path"
		}
		l.add(at, do, "unknown prefix %q", prefix)
		return ruleText{}, false
	}
	text = lower(text)
	if what, do := checkName(text); what != "" {
		l.add(at, do, "%q %s", text, what)
		return ruleText{}, false
	}
	return ruleText{prefix: prefix, text: text}, true
}

// expression reads a regular expression in the syntax of Go's package regexp, which
// takes time linear in the length of the name.
func (l *loader) expression(at place, text string) (ruleText, bool) {
	if text == "" || len(text) > maxPattern {
		l.add(at, "an expression has 1 to 512 characters", "regular expression of %d characters", len(text))
		return ruleText{}, false
	}
	rule := ruleText{prefix: prefixRegexp, text: text}
	if i := find(l.regexps, text); i >= 0 {
		rule.regexp = l.regexps[i].regexp
		return rule, true
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		l.add(at, "the syntax is that of RE2", "%s", err.Error())
		return ruleText{}, false
	}
	if program, err := syntax.Compile(parsed.Simplify()); err != nil || len(program.Inst) > maxProgram {
		l.add(at, "write smaller numbers of repetitions", "the regular expression %q is too large", text)
		return ruleText{}, false
	}
	if rule.regexp, err = regexp.Compile(text); err != nil {
		l.add(at, "the syntax is that of RE2", "%s", err.Error())
		return ruleText{}, false
	}
	return rule, true
}

// checkName says what is wrong with a name in lower case, and what to do. The limits
// are those of RFC 1035, section 2.3.4; underscores occur in names in use.
func checkName(name string) (what, do string) {
	if name == "" {
		return "is empty", "write a name such as example.com"
	}
	if len(name) > flow.MaxName {
		return "is too long", "a name has at most 253 characters"
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			if label++; label > 63 {
				return "has a label that is too long", "a label, the text between two dots, has at most 63 characters"
			}
		case c == '.' && label > 0:
			label = 0
		case c == '.' || c == '*':
			return "is no suffix", "write example.com instead of .example.com or *.example.com: it covers all names below it"
		case c >= 0x80:
			return "is not ASCII", "write an international name in its form xn--..."
		default:
			return "is no name: it contains " + string(rune(c)), "names consist of letters, digits, \"-\", \"_\" and dots"
		}
	}
	if label == 0 {
		return "ends in a dot", "leave out the last dot"
	}
	if last := name[len(name)-1]; '0' <= last && last <= '9' {
		if _, err := netip.ParseAddr(name); err == nil {
			return "is an address", "a names file has names only; a rule of a policy can match an address with host"
		}
	}
	return "", ""
}
