// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
)

// This file has everything about actions in the policy file: add a new one here, in
// flow.Action, in the loader's rules and in bpf/policy.h.

// actionNames are the actions for error messages.
const actionNames = "drop, rate, dscp and pass"

// actionHelp describes the actions for people.
const actionHelp = `action: drop: true | pass: true | rate and/or dscp; rate has scope: class (one
        bucket for the rule and direction) or flow (one for each flow and
        direction), and burst (default: rate x 250 ms, at least 128 kB)
Units are those of tc(8): mbit is 10^6 bits a second, mbps 10^6 bytes; sizes are
powers of 1024. A DSCP is CS0 to CS7, AF11 to AF43, EF, VA, LE or 0 to 63.`

// passAction is the action of a rule that changes nothing.
var passAction = flow.Action{DSCP: -1}

// action reads the action of a rule.
func (p *parsing) action(rule *flow.Rule, node ast.Node, what string) {
	entries, ok := p.mapping(node, what, "pass", "drop", "rate", "burst", "scope", "dscp")
	if !ok {
		return
	}
	if len(entries) == 0 {
		p.addf(node, "%s is empty", what).advise("the actions are %s", actionNames)
		return
	}
	rule.Action.Drop = p.alone(entries, "drop")
	p.alone(entries, "pass")
	if e, ok := entries["dscp"]; ok {
		p.dscp(&rule.Action, e.value)
	}
	p.policer(&rule.Action, entries)
	if rule.Action.Drop && rule.Provisional {
		p.warnf(node, "drop with final: false acts on first guesses; without it the rule waits for the final verdict")
	}
}

// alone reads a true|false that excludes every other word.
func (p *parsing) alone(entries map[string]entry, name string) bool {
	e, ok := entries[name]
	if !ok {
		return false
	}
	value, isBool := p.boolean(e.value, name)
	switch {
	case !isBool:
	case !value:
		p.addf(e.value, "%s: false has no meaning", name).advise("leave it out")
	case len(entries) > 1:
		p.addf(e.key, "%s excludes every other action", name)
	}
	return value
}

func (p *parsing) dscp(action *flow.Action, node ast.Node) {
	text, ok := p.text(node, "dscp")
	if !ok {
		return
	}
	value, err := ParseDSCP(text)
	if err != nil {
		p.addError(node, err)
		return
	}
	action.DSCP = value
}

// policer reads rate, burst and scope.
func (p *parsing) policer(action *flow.Action, entries map[string]entry) {
	e, policed := entries["rate"]
	for _, name := range []string{"burst", "scope"} {
		if e, ok := entries[name]; ok && !policed {
			p.addf(e.key, "%s is set without a rate", name)
		}
	}
	if !policed {
		return
	}
	if text, ok := p.text(e.value, "rate"); ok {
		rate, err := ParseRate(text)
		if err != nil {
			p.addError(e.value, err)
			return
		}
		action.Rate, action.Burst = rate, DefaultBurst(rate)
	}
	if e, ok := entries["scope"]; ok {
		switch text, ok := p.text(e.value, "scope"); {
		case !ok:
		case text == scopeNames[flow.ScopeClass]:
			action.Scope = flow.ScopeClass
		case text == scopeNames[flow.ScopeFlow]:
			action.Scope = flow.ScopeFlow
		default:
			p.addf(e.value, "scope %q; want class or flow", text).
				advise("class is one bucket for the rule and direction, flow is one for each flow and direction")
		}
	}
	if e, ok := entries["burst"]; ok && action.Rate > 0 {
		p.burst(action, e.value)
	}
}

// scopeNames are the words of the scopes.
var scopeNames = map[flow.Scope]string{flow.ScopeClass: "class", flow.ScopeFlow: "flow"}

func (p *parsing) burst(action *flow.Action, node ast.Node) {
	text, ok := p.text(node, "burst")
	if !ok {
		return
	}
	burst, err := ParseSize(text)
	switch least := DefaultBurst(action.Rate); {
	case err != nil:
		p.addError(node, fmt.Errorf("burst: %w", err))
	case burst < MinBurst:
		p.addf(node, "burst %q is less than one packet", text).
			advise("write at least %d bytes, or leave it out for the default, %s", int(MinBurst), FormatSize(least))
	default:
		action.Burst = burst
		if burst < least {
			p.warnf(node, "burst %s is small for %s: TCP will stay far below the rate; leave it out for %s",
				FormatSize(burst), FormatRate(action.Rate), FormatSize(least))
		}
	}
}

// DescribeAction says what a rule does, with every default written out.
func DescribeAction(a flow.Action) string {
	bucket := "one bucket for the rule and direction"
	if a.Scope == flow.ScopeFlow {
		bucket = "one bucket for each flow and direction"
	}
	return describeAction(a, fmt.Sprintf(", burst %s, %s", FormatSize(a.Burst), bucket))
}

// SummariseAction says what a rule does in the words that fit a table.
func SummariseAction(a flow.Action) string {
	scope := " in all"
	if a.Scope == flow.ScopeFlow {
		scope = " for each flow"
	}
	return describeAction(a, scope)
}

// describeAction says what a rule does; how describes its policer.
func describeAction(a flow.Action, how string) string {
	if a.Drop {
		return "drop"
	}
	var parts []string
	if a.Rate > 0 {
		parts = append(parts, "police to "+FormatRate(a.Rate)+how)
	}
	if a.DSCP >= 0 {
		parts = append(parts, "mark DSCP "+FormatDSCP(a.DSCP))
	}
	if len(parts) == 0 {
		return "pass"
	}
	return strings.Join(parts, "; ")
}

// ActionLine is an action as JSON: one field for each thing that it does.
type ActionLine struct {
	Drop  bool   `json:"drop"`
	Rate  uint64 `json:"rate_bps,omitempty"`    // bits per second; 0: not policed
	Burst uint64 `json:"burst_bytes,omitempty"` // set where rate_bps is
	Scope string `json:"scope,omitempty"`       // class or flow, set where rate_bps is
	DSCP  *int   `json:"dscp,omitempty"`        // nil: not marked
}

func actionLine(a flow.Action) ActionLine {
	line := ActionLine{Drop: a.Drop, Rate: a.Rate, Burst: a.Burst}
	if a.Rate > 0 {
		line.Scope = scopeNames[a.Scope]
	}
	if a.DSCP >= 0 && !a.Drop {
		line.DSCP = &a.DSCP
	}
	return line
}
