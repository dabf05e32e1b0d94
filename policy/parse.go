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

// Option changes how Parse reads a file.
type Option func(*parsing)

// WithApps makes names of apps known that neither flow.Vocabulary nor a model has, such
// as those of the catalogue of server names.
func WithApps(names []string) Option {
	return func(p *parsing) { p.apps = names }
}

// Warning is something in a policy that is valid, but probably not intended. Text
// begins with file, line and column.
type Warning struct{ Text string }

// String returns the text.
func (w Warning) String() string { return w.Text }

// Parse reads a policy file: UTF-8, with or without a byte order mark, and lines that end in
// LF, CRLF or CR; the policy's Source has LF and no mark. Errors call the file name. Parse returns either a policy or
// an error: [errors.Join] of one-line errors, one for each problem, that begin with
// "name:line:column:".
func Parse(name string, data []byte, labels Labels, options ...Option) (*flow.Policy, []Warning, error) {
	r := &reader{file: name}
	p := parsing{reader: r, labels: labels, policy: &flow.Policy{}, matches: map[string]int{}}
	for _, option := range options {
		option(&p)
	}
	if text, ok := r.characters(data); ok {
		p.policy.Source = text
		if root := r.document(text); root != nil {
			p.root(root)
		}
	}
	if len(r.problems) == 0 {
		p.reachable()
		p.idle()
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
	apps     []string // known apps that are not among the labels
	models   []Model  // nil: not known
	policy   *flow.Policy
	places   []position     // of the rules
	matches  map[string]int // how many names, hosts and ports the rules match so far
	warnings []Warning
}

func (p *parsing) root(node ast.Node) {
	entries, ok := p.mapping(node, "the policy", "version", "rules", "time_zone", "unparsed", "protect", "default")
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
	if zone, ok := entries["time_zone"]; ok {
		p.zone(zone.value)
	}
	if unparsed, ok := entries["unparsed"]; ok {
		p.unparsed(unparsed.value)
	}
	if protect, ok := entries["protect"]; ok {
		p.protect(protect.value)
	}
	if fallback, ok := entries["default"]; ok {
		p.fallback(fallback.value)
	}
}

// unparsed reads what happens to TCP and UDP packets that the kernel's parser cannot read.
func (p *parsing) unparsed(node ast.Node) {
	text, ok := p.text(node, "unparsed")
	switch {
	case !ok:
	case text == "drop":
		p.policy.DropUnparsed = true
	case text != "pass":
		p.addf(node, "unparsed is %q%s", text, near.Hint(text, []string{"pass", "drop"})).advise("write unparsed: pass or unparsed: drop")
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
	entries, ok := p.mapping(node, what, "match", "action", "schedule", "final", "midstream", "one_sided")
	if !ok {
		return rule
	}
	if match, ok := entries["match"]; ok {
		p.match(&rule, match.value, what+"'s match")
	} else {
		p.addf(node, "%s has no match", what).advise("match: {} matches every decided flow")
	}
	p.life(&rule, entries)
	if schedule, ok := entries["schedule"]; ok {
		rule.Schedule = p.schedule(schedule.value)
	}
	if action, ok := entries["action"]; ok {
		p.action(&rule, action.value, what+"'s action")
	} else {
		p.addf(node, "%s has no action", what).advise("the actions are %s", actionNames)
	}
	return rule
}

// life reads final, midstream and one_sided, which may be inside the match or next to it.
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
	if e, ok := entries["one_sided"]; ok {
		if value, ok := p.boolean(e.value, "one_sided"); ok {
			rule.OneSided = value
		}
	}
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
		advice := "write it as " + proto.String() + "/443"
		if r, err := parsePortRange(text); err == nil && r.First != r.Last {
			advice = "protect has no ranges of ports: name each port"
		}
		p.addf(node, "protect %q; want a port from 1 to 65535", text).advise("%s", advice)
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
	prefix, ok := p.prefix(node, "protect", text, "a prefix or a port", "write it as 10.0.0.0/24, fd00::/8, tcp/22 or udp/51820")
	switch {
	case !ok:
	case slices.Contains(p.policy.Prefixes, prefix):
		p.addf(node, "protect %q appears twice", text)
	default:
		p.policy.Prefixes = append(p.policy.Prefixes, prefix)
	}
}

// prefix reads a prefix, or an address as the prefix that holds it alone. want and advice
// complete the message about a text that is neither.
func (p *parsing) prefix(node ast.Node, what, text, want, advice string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			p.addf(node, "%s %q; want %s", what, text, want).advise("%s", advice)
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	switch {
	case prefix.Addr().Is4In6():
		p.addf(node, "%s %q is an IPv4 address written as IPv6", what, text).advise("write %s", prefix.Addr().Unmap())
	case prefix != prefix.Masked():
		p.addf(node, "%s %q has bits outside its mask", what, text).advise("write %s or %s", prefix.Masked(), prefix.Addr())
	default:
		return prefix, true
	}
	return netip.Prefix{}, false
}
