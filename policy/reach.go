// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
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

// coveredBy reports whether the earlier rules take every flow that the rule could act
// on, and returns those that do. It checks every pair of a category and an app, because
// several rules together can cover one.
func coveredBy(earlier []flow.Rule, rule flow.Rule) (covering []int, covered bool) {
	for _, category := range universe(rule, earlier, func(r flow.Rule) []string { return r.Categories }) {
		for _, app := range universe(rule, earlier, func(r flow.Rule) []string { return r.Apps }) {
			if category == "" && app == "" {
				continue // an undecided flow: no rule acts on it
			}
			i := slices.IndexFunc(earlier, func(e flow.Rule) bool {
				return named(e.Categories, category) && named(e.Apps, app) && takesAll(e, rule, app == "", category == "")
			})
			if i < 0 {
				return nil, false
			}
			if !slices.Contains(covering, i) {
				covering = append(covering, i)
			}
		}
	}
	slices.Sort(covering)
	return covering, len(covering) > 0
}

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

func named(labels []string, label string) bool {
	return labels == nil || slices.Contains(labels, label)
}

// takesAll reports whether the earlier rule, whose labels match, acts whenever the
// later one does. It compares confidence, provisional verdicts and midstream flows.
func takesAll(earlier, later flow.Rule, noApp, noCategory bool) bool {
	if later.Provisional && !earlier.Provisional {
		return false
	}
	// A drop rule lets midstream flows go on to the next rule.
	if earlier.Action.Drop && !earlier.Midstream && (!later.Action.Drop || later.Midstream) {
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
