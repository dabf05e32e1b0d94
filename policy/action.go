// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/near"
)

// This file has everything about actions in the policy file: add a new one here, in
// flow.Action, in the loader's rules and in bpf/policy.h.

// actionNames are the actions for error messages.
const actionNames = "drop, rate, dscp, mark, classid, quota and pass"

// actionHelp describes the actions for people.
const actionHelp = `action: drop: true | pass: true | any of rate, dscp, mark, classid and quota
        rate: 20mbit, with scope: class (one bucket for the rule and direction; the
        default), flow (one for each flow and direction), host (one for each host
        and direction) or fair (hosts share the rule's bucket fairly), and burst
        (default: rate x 250 ms, at least 128 kB)
        dscp: EF, with keep_marked: true (leave a DSCP that is not 0)
        mark: 0x10 (skb mark), classid: "1:20" (class of HTB, tin of CAKE; tc's
        hexadecimal): of sent packets only
        quota: {bytes: 5gb, then: {rate: 1mbit}}: bytes of a host in a day, in both
        directions together; beyond them drop, or rate (of the host) and dscp
        host_end: far (default: who is beyond the interface) or near;
        ipv6_prefix: 64 (bits of an IPv6 address that make a host; default: 128)
schedule: {days: [mon-fri], hours: 08:00-18:00}, beside match: the rule acts only then
Units are those of tc(8): mbit is 10^6 bits a second, mbps 10^6 bytes; sizes are
powers of 1024. A DSCP is CS0 to CS7, AF11 to AF43, EF, VA, LE or 0 to 63.`

// passAction is the action of a rule that changes nothing.
var passAction = flow.Action{DSCP: -1}

// action reads the action of a rule.
func (p *parsing) action(rule *flow.Rule, node ast.Node, what string) {
	entries, ok := p.mapping(node, what, "pass", "drop", "rate", "burst", "scope", "dscp", "keep_marked", "mark", "classid",
		"quota", "host_end", "ipv6_prefix")
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
		p.dscp(&rule.Action.DSCP, e.value)
	}
	p.keepMarked(&rule.Action, entries)
	p.policer(&rule.Action, entries)
	p.classes(rule, entries)
	if e, ok := entries["quota"]; ok {
		p.quota(&rule.Action, e.value)
	}
	p.hostKind(&rule.Action, entries)
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

func (p *parsing) dscp(to *int, node ast.Node) {
	text, ok := p.text(node, "dscp")
	if !ok {
		return
	}
	value, err := ParseDSCP(text)
	if err != nil {
		p.addError(node, err)
		return
	}
	*to = value
}

// keepMarked reads keep_marked, which belongs to a DSCP.
func (p *parsing) keepMarked(action *flow.Action, entries map[string]entry) {
	e, ok := entries["keep_marked"]
	if !ok {
		return
	}
	if _, marks := entries["dscp"]; !marks {
		p.addf(e.key, "keep_marked is set without a dscp")
		return
	}
	action.KeepMarked, _ = p.boolean(e.value, "keep_marked")
}

// classes reads mark and classid, which queues of sent packets read.
func (p *parsing) classes(rule *flow.Rule, entries map[string]entry) {
	for _, name := range []string{"mark", "classid"} {
		if e, ok := entries[name]; ok && rule.Directions != nil && !slices.Contains(rule.Directions, flow.Out) {
			p.addf(e.key, "%s acts on sent packets only, and the rule matches direction: in", name).advise("write direction: out, or leave it out")
		}
	}
	if e, ok := entries["mark"]; ok {
		if text, ok := p.text(e.value, "mark"); ok {
			value, err := strconv.ParseUint(text, 0, 32)
			if err != nil || value == 0 {
				p.addf(e.value, "mark %q; want a number from 1 to 0xffffffff", text)
				return
			}
			rule.Action.Mark = uint32(value)
		}
	}
	if e, ok := entries["classid"]; ok {
		if text, ok := p.text(e.value, "classid"); ok {
			major, minor, _ := strings.Cut(text, ":")
			high, highErr := strconv.ParseUint(major, 16, 16)
			low, lowErr := strconv.ParseUint(minor, 16, 16)
			if highErr != nil || lowErr != nil || high == 0 || low == 0 {
				p.addf(e.value, "classid %q; want two hexadecimal numbers, as tc(8) writes them", text).advise(`write classid: "1:20" for class 1:20`)
				return
			}
			rule.Action.ClassID = uint32(high<<16 | low)
		}
	}
}

// quota reads the bytes of a host in a day, and what comes after them.
func (p *parsing) quota(action *flow.Action, node ast.Node) {
	entries, ok := p.mapping(node, "quota", "bytes", "then")
	if !ok {
		return
	}
	size, hasSize := entries["bytes"]
	then, hasThen := entries["then"]
	if !hasSize || !hasThen {
		p.addf(node, "quota needs bytes and then").advise("write quota: {bytes: 5gb, then: {drop: true}}")
		return
	}
	if text, ok := p.text(size.value, "bytes"); ok {
		value, err := ParseQuota(text)
		if err != nil {
			p.addError(size.value, err)
			return
		}
		action.Quota = value
	}
	over, ok := p.mapping(then.value, "then", "drop", "rate", "burst", "dscp")
	if !ok {
		return
	}
	if len(over) == 0 {
		p.addf(then.value, "then is empty").advise("beyond the quota, a rule can drop, rate or dscp")
		return
	}
	limited := flow.Action{DSCP: -1}
	limited.Drop = p.alone(over, "drop")
	if e, ok := over["dscp"]; ok {
		p.dscp(&limited.DSCP, e.value)
	}
	p.policer(&limited, over)
	action.Over = flow.Over{Drop: limited.Drop, DSCP: limited.DSCP, Rate: limited.Rate, Burst: limited.Burst}
}

// hostKind reads what a host is, for the actions that tell hosts apart.
func (p *parsing) hostKind(action *flow.Action, entries map[string]entry) {
	_, quota := entries["quota"]
	byHost := quota || action.Scope == flow.ScopeHost || action.Scope == flow.ScopeFair
	for _, name := range []string{"host_end", "ipv6_prefix"} {
		if e, ok := entries[name]; ok && !byHost {
			p.addf(e.key, "%s is set without scope: host, scope: fair or quota", name)
			return
		}
	}
	if e, ok := entries["host_end"]; ok {
		switch text, ok := p.text(e.value, "host_end"); {
		case !ok:
		case text == "near":
			action.Near = true
		case text != "far":
			p.addf(e.value, "host_end %q; want far or near", text).
				advise("far is who sends what the interface receives, near who receives it")
		}
	}
	if e, ok := entries["ipv6_prefix"]; ok {
		if text, ok := p.text(e.value, "ipv6_prefix"); ok {
			value, err := strconv.ParseUint(text, 10, 8)
			if err != nil || value < 16 || value > 128 {
				p.addf(e.value, "ipv6_prefix %q; want a number of bits from 16 to 128", text)
				return
			}
			action.Prefix6 = int(value)
		}
	}
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
		if text, ok := p.text(e.value, "scope"); ok {
			scope := slices.Index(scopeNames, text)
			if scope < 0 {
				p.addf(e.value, "scope %q; want class, flow, host or fair%s", text, near.Hint(text, scopeNames)).
					advise("class is one bucket for the rule and direction, flow is one for each flow and direction, host one for each host; " +
						"with fair, hosts share the bucket of the rule")
				return
			}
			action.Scope = flow.Scope(scope)
		}
	}
	if e, ok := entries["burst"]; ok && action.Rate > 0 {
		p.burst(action, e.value)
	}
}

// scopeNames are the words of the scopes, by their number.
var scopeNames = []string{flow.ScopeClass: "class", flow.ScopeFlow: "flow", flow.ScopeHost: "host", flow.ScopeFair: "fair"}

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

// buckets describe the scopes.
var buckets = []string{
	flow.ScopeClass: "one bucket for the rule and direction", flow.ScopeFlow: "one bucket for each flow and direction",
	flow.ScopeHost: "one bucket for each host and direction", flow.ScopeFair: "one bucket for the rule and direction, which hosts share fairly",
}

// inShort describes the scopes in the words that fit a table.
var inShort = []string{
	flow.ScopeClass: " in all", flow.ScopeFlow: " for each flow", flow.ScopeHost: " for each host", flow.ScopeFair: " shared fairly by hosts",
}

// DescribeAction says what a rule does, with every default written out.
func DescribeAction(a flow.Action) string {
	words := describeAction(a, fmt.Sprintf(", burst %s, %s", FormatSize(a.Burst), buckets[a.Scope]), FormatSize(a.Over.Burst))
	if a.Quota == 0 && a.Scope != flow.ScopeHost && a.Scope != flow.ScopeFair {
		return words
	}
	host, prefix := "the far end of the wire", "by its address"
	if a.Near {
		host = "the end on this side of the wire"
	}
	if a.Prefix6 > 0 && a.Prefix6 < 128 {
		prefix = fmt.Sprintf("by its IPv4 address or IPv6 /%d", a.Prefix6)
	}
	return words + fmt.Sprintf(" (a host is %s, %s)", host, prefix)
}

// SummariseAction says what a rule does in the words that fit a table.
func SummariseAction(a flow.Action) string { return describeAction(a, inShort[a.Scope], "") }

// describeAction says what a rule does; how describes its policer, and burst that beyond the
// quota.
func describeAction(a flow.Action, how, burst string) string {
	if a.Drop {
		return "drop"
	}
	parts := limits(a.Rate, how, a.DSCP)
	if a.KeepMarked {
		parts[len(parts)-1] += " unless it has one"
	}
	if a.Mark != 0 {
		parts = append(parts, fmt.Sprintf("skb mark %#x when sent", a.Mark))
	}
	if a.ClassID != 0 {
		parts = append(parts, "class "+formatClass(a.ClassID)+" when sent")
	}
	if a.Quota > 0 {
		if burst != "" {
			burst = ", burst " + burst
		}
		then := strings.Join(limits(a.Over.Rate, " for the host"+burst, a.Over.DSCP), " and ")
		if a.Over.Drop {
			then = "drop"
		}
		parts = append(parts, fmt.Sprintf("beyond %s of a host and day %s", FormatSize(a.Quota), then))
	}
	if len(parts) == 0 {
		return "pass"
	}
	return strings.Join(parts, "; ")
}

// limits describes a rate and a DSCP.
func limits(rate uint64, how string, dscp int) (parts []string) {
	if rate > 0 {
		parts = append(parts, "police to "+FormatRate(rate)+how)
	}
	if dscp >= 0 {
		parts = append(parts, "mark DSCP "+FormatDSCP(dscp))
	}
	return parts
}

// formatClass writes a class as tc(8) does.
func formatClass(id uint32) string { return fmt.Sprintf("%x:%x", id>>16, id&0xffff) }

// ActionLine is an action as JSON: one field for each thing that it does.
type ActionLine struct {
	Drop       bool      `json:"drop"`
	Rate       uint64    `json:"rate_bps,omitempty"`    // bits per second; 0: not policed
	Burst      uint64    `json:"burst_bytes,omitempty"` // set where rate_bps is
	Scope      string    `json:"scope,omitempty"`       // class, flow, host or fair, set where rate_bps is
	DSCP       *int      `json:"dscp,omitempty"`        // nil: not marked
	KeepMarked bool      `json:"keep_marked,omitempty"`
	Mark       uint32    `json:"mark,omitempty"`        // skb mark
	ClassID    string    `json:"classid,omitempty"`     // as tc(8) writes it: "1:20"
	Quota      uint64    `json:"quota_bytes,omitempty"` // of a host and day
	Over       *OverLine `json:"over,omitempty"`        // beyond the quota
	HostEnd    string    `json:"host_end,omitempty"`    // far or near, where hosts are told apart
	Prefix6    int       `json:"ipv6_prefix,omitempty"` // bits that make a host, where hosts are told apart
}

// OverLine is what a rule does beyond a quota, as JSON.
type OverLine struct {
	Drop  bool   `json:"drop"`
	Rate  uint64 `json:"rate_bps,omitempty"`
	Burst uint64 `json:"burst_bytes,omitempty"`
	DSCP  *int   `json:"dscp,omitempty"`
}

func actionLine(a flow.Action) ActionLine {
	line := ActionLine{Drop: a.Drop, Rate: a.Rate, Burst: a.Burst, KeepMarked: a.KeepMarked, Mark: a.Mark, Quota: a.Quota}
	if a.Rate > 0 {
		line.Scope = scopeNames[a.Scope]
	}
	if a.DSCP >= 0 && !a.Drop {
		line.DSCP = &a.DSCP
	}
	if a.ClassID != 0 {
		line.ClassID = formatClass(a.ClassID)
	}
	if a.Quota > 0 {
		line.Over = &OverLine{Drop: a.Over.Drop, Rate: a.Over.Rate, Burst: a.Over.Burst}
		if a.Over.DSCP >= 0 && !a.Over.Drop {
			line.Over.DSCP = &a.Over.DSCP
		}
	}
	if a.Quota > 0 || a.Scope == flow.ScopeHost || a.Scope == flow.ScopeFair {
		line.HostEnd, line.Prefix6 = "far", 128
		if a.Near {
			line.HostEnd = "near"
		}
		if a.Prefix6 > 0 {
			line.Prefix6 = a.Prefix6
		}
	}
	return line
}
