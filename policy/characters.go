// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"

	"github.com/dpclass/dpclass/flow"
)

// characters checks the characters of a file before anything parses them. It returns the
// text without byte order mark and with LF at the ends of lines; ok is false if a problem was
// noted.
func (r *reader) characters(data []byte) (text []byte, ok bool) {
	if len(data) > flow.MaxSource {
		r.addAt(position{}, "the file has more than %d bytes", flow.MaxSource)
		return nil, false
	}
	for _, mark := range [][]byte{{0xff, 0xfe}, {0xfe, 0xff}} { // RFC 2781, section 3.2
		if bytes.HasPrefix(data, mark) {
			r.addAt(position{}, "the file is UTF-16").advise("save it as UTF-8")
			return nil, false
		}
	}
	text = bytes.TrimPrefix(data, []byte("\ufeff"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	at := position{1, 1}
	for rest := text; len(rest) > 0; at.column++ {
		c, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		switch {
		case c == '\n':
			at = position{at.line + 1, 0}
		case c == utf8.RuneError && size == 1:
			r.addAt(at, "the file is not UTF-8").advise("save it as UTF-8")
			return nil, false
		case c != '\t' && unicode.IsControl(c):
			r.addAt(at, "control character %U", c).advise("a policy is plain text: delete the character")
			return nil, false
		}
	}
	return text, true
}

// structure checks what the YAML parser would recurse into or multiply: nesting, anchors
// and tags. A policy needs a few levels of nesting and none of the others. An alias without
// an anchor is left to those who know what it was meant to be, such as *.example.org.
func (r *reader) structure(tokens token.Tokens) bool {
	var open []int // columns of the blocks that a token is in
	brackets, line := 0, 0
	for _, t := range tokens {
		at := tokenPlace(t)
		switch t.Type {
		case token.AnchorType, token.MergeKeyType, token.TagType:
			r.addAt(at, "a YAML anchor, alias, merge or tag, which a policy may not have").advise(`write the value in full; put a word that begins with "&" or "!" in quotes`)
			return false
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		}
		if at.line != line || t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType {
			for len(open) > 0 && open[len(open)-1] >= at.column {
				open = open[:len(open)-1]
			}
			open = append(open, at.column)
			line = at.line
		}
		if len(open) > maxNesting || brackets > maxNesting {
			r.addAt(at, "nested more than %d deep", maxNesting)
			return false
		}
	}
	return true
}
