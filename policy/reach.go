// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
)

// anyOther means a label that no rule names; "" means a task without a verdict.
const anyOther = "\x00"

// reachable rejects a rule that can never match because earlier rules take every flow
// that it could match.
func (p *parsing) reachable() {
	rules := p.policy.Rules
	for n := range rules {
		covering, covered := coveredBy(rules[:n], rules[n])
		if !covered {
			continue
		}
		var names []string
		for _, m := range covering {
			names = append(names, fmt.Sprint(m+1))
		}
		if len(names) == 1 {
			p.addAt(p.places[n], "rule %d can never match: rule %s covers it", n+1, names[0]).advise("put it before that rule, or remove it")
		} else {
			p.addAt(p.places[n], "rule %d can never match: rules %s cover it", n+1, strings.Join(names, ", ")).advise("put it before them, or remove it")
		}
	}
}

// coveredBy reports whether the earlier rules take every packet that the rule could act
// on, and returns those that do. It checks every direction with every pair of a category
// and an app, because several rules together can cover one. The other matches of a rule
// have to be covered by one earlier rule.
func coveredBy(earlier []flow.Rule, rule flow.Rule) (covering []int, covered bool) {
	directions := rule.Directions
	if directions == nil {
		directions = []flow.Direction{flow.In, flow.Out}
	}
	earlier = slices.Clone(earlier)
	for i, e := range earlier {
		if !matchesAll(e, rule) || e.Schedule != nil {
			earlier[i].Directions = []flow.Direction{} // of no packet
		}
	}
	for _, category := range universe(rule, earlier, func(r flow.Rule) []string { return r.Categories }) {
		for _, app := range universe(rule, earlier, func(r flow.Rule) []string { return r.Apps }) {
			undecided := category == "" && app == ""
			if undecided && rule.NeedsVerdict() {
				continue
			}
			for _, direction := range directions {
				i := slices.IndexFunc(earlier, func(e flow.Rule) bool {
					return named(e.Directions, direction) && named(e.Categories, category) && named(e.Apps, app) &&
						!(undecided && e.NeedsVerdict()) && takesAll(e, rule, app == "", category == "")
				})
				if i < 0 {
					return nil, false
				}
				if !slices.Contains(covering, i) {
					covering = append(covering, i)
				}
			}
		}
	}
	slices.Sort(covering)
	return covering, len(covering) > 0
}

// matchesAll reports whether a flow that fits the later rule's source, protocols, names,
// hosts and ports always fits those of the earlier one.
func matchesAll(earlier, later flow.Rule) bool {
	return (earlier.Sources == nil || ofApp(earlier) == ofApp(later) && within(later.Sources, earlier.Sources, equal)) &&
		within(later.Protocols, earlier.Protocols, equal) &&
		within(later.Names, earlier.Names, nameWithin) &&
		within(later.Hosts, earlier.Hosts, hostWithin) &&
		within(later.Ports, earlier.Ports, portWithin)
}

// within reports whether each item of the inner list lies in one of the outer list; nil is
// a list of everything.
func within[T any](inner, outer []T, in func(inner, outer T) bool) bool {
	return outer == nil || inner != nil && each(inner, func(i T) bool {
		return slices.ContainsFunc(outer, func(o T) bool { return in(i, o) })
	})
}

func equal[T comparable](a, b T) bool { return a == b }

func hostWithin(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

func portWithin(inner, outer flow.PortRange) bool {
	return (outer.Proto == 0 || outer.Proto == inner.Proto) && outer.First <= inner.First && inner.Last <= outer.Last
}

// ofApp reports whether the source that a rule matches is that of the app's verdict.
func ofApp(r flow.Rule) bool { return r.Categories == nil && r.Apps != nil }

// universe returns the labels of one task to check a rule with: the rule's own, or, if it
// accepts any, all that the earlier rules name, anyOther and "".
func universe(rule flow.Rule, earlier []flow.Rule, labels func(flow.Rule) []string) []string {
	if own := labels(rule); own != nil {
		return own
	}
	all := []string{"", anyOther}
	for _, e := range earlier {
		all = append(all, labels(e)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// named reports whether a match names a label or a direction; nil is all of them.
func named[T comparable](list []T, item T) bool {
	return list == nil || slices.Contains(list, item)
}

// takesAll reports whether the earlier rule, whose labels match, acts whenever the
// later one does. It compares confidence, provisional verdicts, midstream
// flows and those of which only one end was seen.
func takesAll(earlier, later flow.Rule, noApp, noCategory bool) bool {
	if later.Provisional && !earlier.Provisional && earlier.NeedsVerdict() {
		return false
	}
	// A drop rule lets midstream flows go on to the next rule.
	if earlier.Action.Drop && !earlier.Midstream && (!later.Action.Drop || later.Midstream) {
		return false
	}
	// It also lets TCP flows go on of which only one end was seen.
	if earlier.Action.Drop && !earlier.OneSided && (!later.Action.Drop || later.OneSided) {
		return false
	}
	if earlier.MinConfidence == 0 {
		return true
	}
	if earlier.MinConfidence > later.MinConfidence {
		return false
	}
	// A rule checks the confidence of the tasks that it names, or the higher of both if
	// it names none. If only the earlier rule names a task, that task's confidence could
	// be lower than what the later rule asks for.
	category := earlier.Categories == nil || later.Categories != nil || noApp
	app := earlier.Apps == nil || later.Apps != nil || noCategory
	return category && app
}
