// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
)

// maxNesting bounds the brackets, and the blocks, that are inside each other: the YAML
// parser recurses.
const maxNesting = 32

// position is a place in the file, from 1.
type position struct{ line, column int }

// problem is something wrong at a place in the file.
type problem struct {
	position
	text   string
	advice string // what to do, "" if the text says enough
}

// advise adds advice to a problem.
func (p *problem) advise(format string, args ...any) {
	p.advice = fmt.Sprintf(format, args...)
}

// reader collects the problems of one file.
type reader struct {
	file     string
	problems []*problem
}

// addf notes a problem at a node.
func (r *reader) addf(node ast.Node, format string, args ...any) *problem {
	return r.addAt(place(node), format, args...)
}

func (r *reader) addAt(at position, format string, args ...any) *problem {
	p := &problem{position: at, text: fmt.Sprintf(format, args...)}
	r.problems = append(r.problems, p)
	return p
}

// addError notes an error, with its advice, as a problem at a node.
func (r *reader) addError(node ast.Node, err error) {
	r.addf(node, "%s", err).advise("%s", strings.Join(fault.Advice(err), "; "))
}

// maxProblems bounds the problems of an error.
const maxProblems = 20

// maxText bounds the text of a problem, which may quote the file.
const maxText = 500

// err returns each problem as one error, joined; nil if there is none.
func (r *reader) err() error {
	var all []error
	for _, p := range r.problems[:min(maxProblems, len(r.problems))] {
		one := errors.New(r.at(p.position, p.text))
		if p.advice != "" {
			one = fault.New(one.Error(), oneLine(p.advice))
		}
		all = append(all, one)
	}
	return errors.Join(all...)
}

// at returns a text with its place in the file.
func (r *reader) at(where position, text string) string {
	if where.line == 0 {
		return fmt.Sprintf("%s: %s", r.file, oneLine(text))
	}
	return fmt.Sprintf("%s:%d:%d: %s", r.file, where.line, where.column, oneLine(text))
}

// oneLine turns a text that may quote the file into one printable line.
func oneLine(text string) string {
	text = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}

func place(node ast.Node) position {
	switch node := node.(type) {
	case nil:
		return position{}
	case *ast.MappingValueNode: // its own token is the colon
		return place(node.Key)
	case *ast.MappingNode:
		if !node.IsFlowStyle && len(node.Values) > 0 {
			return place(node.Values[0].Key)
		}
	}
	return tokenPlace(node.GetToken())
}

func tokenPlace(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{}
	}
	return position{t.Position.Line, t.Position.Column}
}

// document returns the root node of a text that [reader.characters] has checked, or nil
// with a problem noted.
func (r *reader) document(text []byte) ast.Node {
	file, err := r.parse(text)
	if err != nil {
		r.syntax(err, text)
		return nil
	}
	if file == nil {
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		if body != nil {
			r.addf(doc.Body, "a second YAML document; a policy file has one")
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		r.addAt(position{}, "the file is empty").advise("begin with version: 1")
	}
	return body
}

// parse calls the YAML parser, if the file has no more than a policy may have: otherwise it
// notes a problem and returns nil. It turns a panic of that library on a strange file into
// an error: a policy file must never crash the program.
func (r *reader) parse(text []byte) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			file, err = nil, fmt.Errorf("not YAML (%v)", p)
		}
	}()
	tokens := lexer.Tokenize(string(text))
	if !r.structure(tokens) {
		return nil, nil
	}
	return parser.Parse(tokens, 0)
}

// quoteAdvice is for addresses such as fd00::1 inside brackets, where the YAML parser
// takes a colon for the end of a key.
const quoteAdvice = `put an IPv6 address in quotes: "fd00::1"`

// syntax notes an error of the YAML parser in the file.
func (r *reader) syntax(err error, data []byte) {
	var located yaml.Error
	if errors.As(err, &located) {
		at := tokenPlace(located.GetToken())
		problem := r.addAt(at, "%s", strings.TrimSpace(located.GetMessage()))
		lines := strings.Split(string(data), "\n")
		if at.line > 0 && at.line <= len(lines) && strings.Contains(lines[at.line-1], "::") {
			problem.advise(quoteAdvice)
		}
		return
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	r.addAt(position{}, "%s", line)
}

// entry is one key of a mapping with its value.
type entry struct {
	key   ast.Node
	value ast.Node
}

// mapping returns the entries of a mapping by key. Unknown and repeated keys are
// problems. ok is false if the node is not a mapping.
func (r *reader) mapping(node ast.Node, what string, known ...string) (entries map[string]entry, ok bool) {
	var values []*ast.MappingValueNode
	switch node := node.(type) {
	case *ast.MappingNode:
		values = node.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{node}
	default:
		r.addf(node, "%s is %s; want a mapping", what, kind(node)).advise("the keys are %s", strings.Join(known, ", "))
		return nil, false
	}
	entries = map[string]entry{}
	for _, value := range values {
		key := scalar(value.Key)
		switch _, twice := entries[key]; {
		case !slices.Contains(known, key):
			r.addf(value.Key, "unknown key %q in %s%s", key, what, near.Hint(key, known)).advise("the keys are %s", strings.Join(known, ", "))
		case twice:
			r.addf(value.Key, "key %q appears twice in %s", key, what)
		default:
			entries[key] = entry{value.Key, value.Value}
		}
	}
	return entries, true
}

// list returns the items of a sequence; a single scalar is a list of one.
func (r *reader) list(node ast.Node, what string) ([]ast.Node, bool) {
	switch node := node.(type) {
	case *ast.SequenceNode:
		if len(node.Values) == 0 {
			r.addf(node, "%s is an empty list", what)
			return nil, false
		}
		return node.Values, true
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return []ast.Node{node}, true
	}
	r.addf(node, "%s is %s; want a word or a list of words", what, kind(node))
	return nil, false
}

// text returns the text of a scalar.
func (r *reader) text(node ast.Node, what string) (string, bool) {
	switch node.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return scalar(node), true
	}
	problem := r.addf(node, "%s is %s; want one value", what, kind(node))
	if _, mapping := node.(*ast.MappingNode); mapping {
		problem.advise(quoteAdvice)
	}
	return "", false
}

// boolean returns the value of true or false.
func (r *reader) boolean(node ast.Node, what string) (value, ok bool) {
	if node, is := node.(*ast.BoolNode); is {
		return node.Value, true
	}
	r.addf(node, "%s is %s; want true or false", what, kind(node))
	return false, false
}

// scalar returns a scalar as it was written.
func scalar(node ast.Node) string {
	if node, ok := node.(*ast.StringNode); ok {
		return node.Value
	}
	if t := node.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

// kind names a node for people.
func kind(node ast.Node) string {
	switch node := node.(type) {
	case nil, *ast.NullNode:
		return "empty"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		return "a YAML anchor, alias, merge or tag, which a policy may not have"
	case *ast.LiteralNode:
		return "a block of text"
	default:
		return fmt.Sprintf("%q", scalar(node))
	}
}
