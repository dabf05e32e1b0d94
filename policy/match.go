// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/near"
)

// This file reads the keys of a match that are about a flow's verdicts. endpoint.go has
// those about its protocol, server name, addresses and ports.

// matchKeys are the keys of a match.
var matchKeys = []string{
	"category", "app", "vpn", "min_confidence", "source", "protocol", "name", "host", "port", "direction", "final", "midstream",
	"one_sided",
}

// matchHelp describes the matches for people.
const matchHelp = `match:  a flow matches if it fits every key; one item of a list is enough
        category, app: a label; vpn: true|false
        protocol: what the first packets are: tls, quic, ssh, rtp, wireguard, ...
        name: server name; example.org matches www.example.org too
        host: address or prefix of either end: 10.0.0.1, "fd00::/8"
        port: port of either end: 443, 5000-5100, udp/51820, tcp/8000-8100
        direction: in (received packets) or out (sent packets)
        source: what decided: model, operator, name, protocol
        min_confidence: 0 to 1; final: false (act on provisional verdicts too)
        midstream: true (let a drop act on TCP connections whose beginning was
        not seen); one_sided: true (let it act before both ends of a TCP
        connection have sent packets)
        With protocol, name, host or port, and none of category, app, vpn, source
        and min_confidence, a rule also acts on flows without a verdict.
`

func (p *parsing) match(rule *flow.Rule, node ast.Node, what string) {
	entries, ok := p.mapping(node, what, matchKeys...)
	if !ok {
		return
	}
	problems := len(p.problems)
	if e, ok := entries["category"]; ok {
		rule.Categories = p.labelNames(e.value, "category")
	}
	if e, ok := entries["app"]; ok {
		rule.Apps = p.labelNames(e.value, "app")
	}
	if e, ok := entries["vpn"]; ok {
		if want, ok := p.boolean(e.value, "vpn"); ok && len(p.problems) == problems {
			p.vpn(rule, e.value, want)
		}
	}
	if e, ok := entries["min_confidence"]; ok {
		p.confidence(rule, e.value)
	}
	if e, ok := entries["source"]; ok {
		rule.Sources = p.sources(e.value)
	}
	if len(p.problems) == problems {
		for _, task := range []flow.Task{flow.Category, flow.App} {
			if e, ok := entries[task.String()]; ok {
				p.unsaid(rule, task, e.value)
			}
		}
	}
	p.endpoints(rule, entries)
	p.life(rule, entries)
	if e, ok := entries["final"]; ok && !rule.NeedsVerdict() && len(p.problems) == problems {
		p.warnf(e.key, "final changes nothing: the rule does not ask for a verdict")
	}
	if len(p.problems) == problems {
		p.contradictions(rule, entries)
	}
}

func (p *parsing) confidence(rule *flow.Rule, node ast.Node) {
	text, ok := p.text(node, "min_confidence")
	if !ok {
		return
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !(value >= 0 && value <= 1) {
		p.addf(node, "min_confidence %q is not a number from 0 to 1", text)
		return
	}
	rule.MinConfidence = value
}

// words calls read with every item of a word or a list of words.
func (p *parsing) words(node ast.Node, what string, read func(item ast.Node, text string)) {
	items, ok := p.list(node, what)
	if !ok {
		return
	}
	if len(items) > flow.MaxMatches {
		p.addf(node, "%s has %d items; at most %d are allowed", what, len(items), flow.MaxMatches)
		return
	}
	for _, item := range items {
		if text, ok := p.text(item, what); ok {
			read(item, text)
		}
	}
}

// add appends an item of a list, unless it is there already.
func add[T comparable](p *parsing, list []T, value T, node ast.Node, what, text string) []T {
	if slices.Contains(list, value) {
		p.addf(node, "%s %q appears twice", what, text)
		return list
	}
	return append(list, value)
}

// maxKnown bounds the known labels that advice lists.
const maxKnown = 60

// labelNames reads the labels of a task, category or app.
func (p *parsing) labelNames(node ast.Node, task string) []string {
	known, other, others := flow.Categories, "app", slices.Concat(flow.Apps, p.apps)
	if task == "app" {
		known, other, others = others, "category", flow.Categories
	}
	known = slices.Concat(known, []string{flow.Unknown}, p.labels)
	var names []string
	p.words(node, task, func(item ast.Node, name string) {
		_, isProtocol := flow.ParseProtocol(name)
		switch {
		case slices.Contains(known, name):
			names = add(p, names, name, item, task, name)
		case slices.Contains(others, name):
			p.addf(item, "unknown %s %q; it is %s", task, name, article(other)).advise("write %s: %s", other, name)
		case isProtocol:
			p.addf(item, "unknown %s %q; it is a protocol", task, name).advise("write protocol: %s", name)
		case len(known) > maxKnown:
			p.addf(item, "unknown %s %q%s", task, name, near.Hint(name, known)).
				advise(`"dpclass names list" shows the apps of the catalogue; the others are %s`, strings.Join(flow.Apps, ", "))
		default:
			p.addf(item, "unknown %s %q%s", task, name, near.Hint(name, known)).advise("known: %s", strings.Join(known, ", "))
		}
	})
	return names
}

// article puts "a" or "an" in front of a word.
func article(word string) string {
	if strings.Contains("aeiou", word[:1]) {
		return "an " + word
	}
	return "a " + word
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
		return slices.Contains(flow.Apps, name) || slices.Contains(p.apps, name) || slices.Contains(flow.Categories, name) ||
			name == flow.Unknown || name == ""
	})
}

// sourceWords say who gave a verdict, for people.
var sourceWords = map[flow.Source]string{
	flow.SourceModel: "the model", flow.SourceOperator: "the operator",
	flow.SourceName: "the server name", flow.SourceProtocol: "the protocol",
}

func (p *parsing) sources(node ast.Node) []flow.Source {
	known := []string{"model", "operator", "name", "protocol"}
	var sources []flow.Source
	p.words(node, "source", func(item ast.Node, text string) {
		source, ok := flow.ParseSource(text)
		if !ok {
			p.addf(item, "unknown source %q%s", text, near.Hint(text, known)).
				advise(`a source is what decided the verdict: model, operator ("dpclass flows set"), name or protocol`)
			return
		}
		sources = add(p, sources, source, item, "source", text)
	})
	return sources
}

// contradictions finds matches that no flow can fit.
func (p *parsing) contradictions(rule *flow.Rule, entries map[string]entry) {
	if rule.Protocols == nil && rule.Sources == nil {
		return
	}
	protocols := rule.Protocols
	if protocols == nil {
		protocols = flow.Protocols()
	}
	var decided []string // categories
	fits := false
	for _, protocol := range protocols {
		category := protocol.Category()
		if category == "" {
			continue
		}
		if !slices.Contains(decided, category) {
			decided = append(decided, category)
		}
		fits = fits || named(rule.Categories, category) || named(rule.Categories, "vpn-"+category)
	}
	categories := strings.Join(rule.Categories, ", ")
	if !ofApp(*rule) && !fits && slices.Equal(rule.Sources, []flow.Source{flow.SourceProtocol}) {
		advice := "leave source out, or write source: [name, model]"
		switch node := entries["source"].value; {
		case len(decided) == 0:
			p.addf(node, "source: protocol never fits: %s decides no category", orList(protocolNames(protocols), maxListed)).advise("%s", advice)
		case rule.Protocols == nil:
			p.addf(node, "source: protocol never fits: no protocol decides the category %s", categories).advise("%s", advice)
		default:
			p.addf(node, "source: protocol never fits: %s decides the category %s, not %s",
				orList(protocolNames(protocols), maxListed), orList(decided, maxListed), categories).advise("%s", advice)
		}
		return
	}
	undecided := slices.ContainsFunc(rule.Protocols, func(protocol flow.Protocol) bool { return protocol.Category() == "" })
	others := rule.Sources != nil && !slices.Contains(rule.Sources, flow.SourceModel) && !slices.Contains(rule.Sources, flow.SourceProtocol)
	if rule.Protocols != nil && rule.Categories != nil && !fits && !undecided && !others {
		p.warnf(entries["category"].value, "%s decides the category %s; only a server name or the operator can make it %s",
			orList(protocolNames(protocols), maxListed), orList(decided, maxListed), orList(rule.Categories, maxListed))
	}
}

// idle warns of rules that drop or police nothing, because protect names all that they match.
func (p *parsing) idle() {
	for n, rule := range p.policy.Rules {
		if !rule.Action.Drop && rule.Action.Rate == 0 && rule.Action.Quota == 0 {
			continue
		}
		for _, key := range []struct {
			name      string
			protected bool
		}{
			{"host", rule.Hosts != nil && len(p.policy.Prefixes) > 0 && within(rule.Hosts, p.policy.Prefixes, hostWithin)},
			{"port", rule.Ports != nil && portsProtected(rule.Ports, p.policy.Ports)},
		} {
			if key.protected {
				p.warnings = append(p.warnings, Warning{p.at(p.places[n],
					"rule "+strconv.Itoa(n+1)+" neither drops nor polices: protect names every "+key.name+" that it matches")})
			}
		}
	}
}
