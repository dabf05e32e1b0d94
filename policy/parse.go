// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/near"
)

// Labels are the names that a policy may use in addition to flow.Vocabulary: labels of
// the operator's own models.
type Labels []string

// Warning is something in a policy that is valid, but probably not intended. Text
// begins with file, line and column.
type Warning struct{ Text string }

// String returns the text.
func (w Warning) String() string { return w.Text }

// Parse reads a policy file. Errors call the file name. Parse returns either a policy or
// an error: [errors.Join] of one-line errors, one for each problem, that begin with
// "name:line:column:".
func Parse(name string, data []byte, labels Labels) (*flow.Policy, []Warning, error) {
	r := &reader{file: name}
	p := parsing{reader: r, labels: labels, policy: &flow.Policy{Source: slices.Clone(data)}}
	if root := r.document(data); root != nil {
		p.root(root)
	}
	if len(r.problems) == 0 {
		p.reachable()
	}
	if err := r.err(); err != nil {
		return nil, nil, err
	}
	return p.policy, p.warnings, nil
}

// parsing is the state while one file is parsed.
type parsing struct {
	*reader
	labels   Labels
	policy   *flow.Policy
	places   []position // of the rules
	warnings []Warning
}

func (p *parsing) root(node ast.Node) {
	entries, ok := p.mapping(node, "the policy", "version", "rules", "protect", "default")
	if !ok {
		return
	}
	if version, ok := entries["version"]; !ok {
		p.addf(node, "version is missing").advise("write version: 1")
	} else if text, ok := p.text(version.value, "version"); ok && text != "1" {
		p.addf(version.value, "unknown version %q", text).advise("write version: 1")
	}
	if rules, ok := entries["rules"]; ok {
		p.rules(rules.value)
	}
	if protect, ok := entries["protect"]; ok {
		p.protect(protect.value)
	}
	if fallback, ok := entries["default"]; ok {
		p.fallback(fallback.value)
	}
}

// fallback checks the default: flows that no rule matches are passed, always.
func (p *parsing) fallback(node ast.Node) {
	entries, ok := p.mapping(node, "default", "pass")
	if !ok {
		return
	}
	pass, ok := entries["pass"]
	if !ok {
		p.addf(node, "default is empty").advise("the only default is {pass: true}")
		return
	}
	if value, ok := p.boolean(pass.value, "pass"); ok && !value {
		p.addf(pass.value, "the only default is {pass: true}").advise("write a last rule with match: {}, which acts on every decided flow")
	}
}

func (p *parsing) rules(node ast.Node) {
	if node.Type() == ast.NullType {
		return // "rules:" with nothing after it
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		p.addf(node, "rules is %s; want a list", kind(node)).advise("each rule has a match and an action")
		return
	}
	if len(list.Values) > flow.MaxRules {
		p.addf(list.Values[flow.MaxRules], "%d rules; at most %d are allowed", len(list.Values), flow.MaxRules)
		return
	}
	for i, item := range list.Values {
		p.places = append(p.places, place(item))
		p.policy.Rules = append(p.policy.Rules, p.rule(item, fmt.Sprintf("rule %d", i+1)))
	}
}

func (p *parsing) rule(node ast.Node, what string) flow.Rule {
	rule := flow.Rule{Action: passAction}
	entries, ok := p.mapping(node, what, "match", "action", "final", "midstream")
	if !ok {
		return rule
	}
	if match, ok := entries["match"]; ok {
		p.match(&rule, match.value, what+"'s match")
	} else {
		p.addf(node, "%s has no match", what).advise("match: {} matches every decided flow")
	}
	p.life(&rule, entries)
	if action, ok := entries["action"]; ok {
		p.action(&rule, action.value, what+"'s action")
	} else {
		p.addf(node, "%s has no action", what).advise("the actions are %s", actionNames)
	}
	return rule
}

// life reads final and midstream, which may be inside the match or next to it.
func (p *parsing) life(rule *flow.Rule, entries map[string]entry) {
	if e, ok := entries["final"]; ok {
		if value, ok := p.boolean(e.value, "final"); ok {
			rule.Provisional = !value
		}
	}
	if e, ok := entries["midstream"]; ok {
		if value, ok := p.boolean(e.value, "midstream"); ok {
			rule.Midstream = value
		}
	}
}

func (p *parsing) match(rule *flow.Rule, node ast.Node, what string) {
	entries, ok := p.mapping(node, what, "category", "app", "vpn", "min_confidence", "final", "midstream")
	if !ok {
		return
	}
	problems := len(p.problems)
	if e, ok := entries["category"]; ok {
		rule.Categories = p.names(e.value, "category", flow.Categories, flow.Apps)
	}
	if e, ok := entries["app"]; ok {
		rule.Apps = p.names(e.value, "app", flow.Apps, flow.Categories)
	}
	if e, ok := entries["vpn"]; ok {
		if want, ok := p.boolean(e.value, "vpn"); ok && len(p.problems) == problems {
			p.vpn(rule, e.value, want)
		}
	}
	if e, ok := entries["min_confidence"]; ok {
		if text, ok := p.text(e.value, "min_confidence"); ok {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil || !(value >= 0 && value <= 1) {
				p.addf(e.value, "min_confidence %q is not a number from 0 to 1", text)
			} else {
				rule.MinConfidence = value
			}
		}
	}
	p.life(rule, entries)
}

// names reads the labels of a task. others are the labels of the other task,
// for a better message.
func (p *parsing) names(node ast.Node, task string, known, others []string) []string {
	known = slices.Concat(known, []string{flow.Unknown}, p.labels)
	items, ok := p.list(node, task)
	if !ok {
		return nil
	}
	var names []string
	for _, item := range items {
		name, ok := p.text(item, task)
		switch {
		case !ok:
		case slices.Contains(names, name):
			p.addf(item, "%s %q appears twice", task, name)
		case slices.Contains(known, name):
			names = append(names, name)
		case slices.Contains(others, name) && task == "category":
			p.addf(item, "unknown category %q; it is an app", name).advise("write app: %s", name)
		case slices.Contains(others, name):
			p.addf(item, "unknown app %q; it is a category", name).advise("write category: %s", name)
		default:
			p.addf(item, "unknown %s %q%s", task, name, near.Hint(name, known)).advise("known: %s", strings.Join(known, ", "))
		}
	}
	return names
}

// vpn turns a vpn: match into the list of categories that it covers. A flow of unknown
// category matches neither vpn: true nor vpn: false.
func (p *parsing) vpn(rule *flow.Rule, node ast.Node, want bool) {
	from := rule.Categories
	if from == nil {
		from = slices.Concat(flow.Categories, p.categoryLabels())
	}
	var kept []string
	for _, name := range from {
		if name != flow.Unknown && flow.IsVPN(name) == want {
			kept = append(kept, name)
		}
	}
	if len(kept) == 0 {
		p.addf(node, "vpn: %t matches none of the categories %s", want, strings.Join(from, ", "))
		return
	}
	rule.Categories = kept
}

// categoryLabels are the models' own labels that are not a known app.
func (p *parsing) categoryLabels() []string {
	return slices.DeleteFunc(slices.Clone(p.labels), func(name string) bool {
		return slices.Contains(flow.Apps, name) || slices.Contains(flow.Categories, name) || name == flow.Unknown || name == ""
	})
}

func (p *parsing) warnf(node ast.Node, format string, args ...any) {
	p.warnings = append(p.warnings, Warning{p.at(place(node), fmt.Sprintf(format, args...))})
}

func (p *parsing) protect(node ast.Node) {
	if node.Type() == ast.NullType {
		return
	}
	items, ok := p.list(node, "protect")
	if !ok {
		return
	}
	for _, item := range items {
		text, ok := p.text(item, "protect")
		if !ok {
			continue
		}
		if proto, port, isPort := cutPort(text); isPort {
			p.protectPort(item, text, proto, port)
		} else {
			p.protectPrefix(item, text)
		}
	}
	if len(p.policy.Prefixes) > flow.MaxProtected || len(p.policy.Ports) > flow.MaxProtected {
		p.addf(node, "protect names more than %d prefixes or ports", flow.MaxProtected)
	}
}

// cutPort splits udp/51820.
func cutPort(text string) (flow.Proto, string, bool) {
	name, port, ok := strings.Cut(text, "/")
	proto, known := flow.ParseProto(name)
	return proto, port, ok && known
}

func (p *parsing) protectPort(node ast.Node, text string, proto flow.Proto, port string) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		p.addf(node, "protect %q; want a port from 1 to 65535", text).advise("write it as %s/443", proto)
		return
	}
	entry := flow.PortProtect{Proto: proto, Port: uint16(number)}
	if slices.Contains(p.policy.Ports, entry) {
		p.addf(node, "protect %q appears twice", text)
		return
	}
	p.policy.Ports = append(p.policy.Ports, entry)
}

func (p *parsing) protectPrefix(node ast.Node, text string) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			p.addf(node, "protect %q; want a prefix or a port", text).advise("write it as 10.0.0.0/24, fd00::/8, tcp/22 or udp/51820")
			return
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	switch {
	case prefix.Addr().Is4In6():
		p.addf(node, "protect %q is an IPv4 address written as IPv6", text).advise("write %s", prefix.Addr().Unmap())
	case prefix != prefix.Masked():
		p.addf(node, "protect %q has bits outside its mask", text).advise("write %s or %s", prefix.Masked(), prefix.Addr())
	case slices.Contains(p.policy.Prefixes, prefix):
		p.addf(node, "protect %q appears twice", text)
	default:
		p.policy.Prefixes = append(p.policy.Prefixes, prefix)
	}
}
