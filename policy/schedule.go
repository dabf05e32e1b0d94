// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/near"
)

// dayNames are the days, from Sunday (time.Weekday).
var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// minutesOfDay is the end of a day in minutes.
const minutesOfDay = 24 * 60

// zone reads the time zone of schedules and quotas.
func (p *parsing) zone(node ast.Node) {
	text, ok := p.text(node, "time_zone")
	if !ok {
		return
	}
	zone, err := time.LoadLocation(text)
	if err != nil || text == "" {
		p.addf(node, "unknown time zone %q", text).advise("write UTC, or a name of the IANA database such as Europe/Berlin; without time_zone, the machine's zone is used")
		return
	}
	p.policy.Zone = zone
}

// schedule reads when a rule acts.
func (p *parsing) schedule(node ast.Node) *flow.Schedule {
	entries, ok := p.mapping(node, "schedule", "days", "hours")
	if !ok {
		return nil
	}
	if len(entries) == 0 {
		p.addf(node, "schedule is empty").advise("write schedule: {days: [mon-fri], hours: 08:00-18:00}")
		return nil
	}
	s := flow.Schedule{Days: [7]bool{true, true, true, true, true, true, true}}
	if e, ok := entries["days"]; ok {
		s.Days = [7]bool{}
		p.words(e.value, "days", func(item ast.Node, text string) { p.days(&s, item, text) })
	}
	if e, ok := entries["hours"]; ok {
		p.words(e.value, "hours", func(item ast.Node, text string) {
			hours, err := parseHours(text)
			if err != nil {
				p.addf(item, "hours %q: %v", text, err).advise("write 08:00-18:00, or 22:00-06:00 for hours that end on the next day")
				return
			}
			s.Hours = add(p, s.Hours, hours, item, "hours", text)
		})
	}
	return &s
}

// days adds a day or a range of days to a schedule.
func (p *parsing) days(s *flow.Schedule, node ast.Node, text string) {
	first, last, isRange := strings.Cut(strings.ToLower(text), "-")
	if !isRange {
		last = first
	}
	from, to := slices.Index(dayNames, first), slices.Index(dayNames, last)
	if from < 0 || to < 0 {
		p.addf(node, "unknown day %q%s", text, near.Hint(text, dayNames)).advise("write mon, tue, wed, thu, fri, sat, sun, or a range: mon-fri")
		return
	}
	for day := from; ; day = (day + 1) % 7 {
		if s.Days[day] {
			p.addf(node, "day %q appears twice", dayNames[day])
			return
		}
		s.Days[day] = true
		if day == to {
			return
		}
	}
}

// parseHours reads 08:00-18:00. 24:00 is the end of a day.
func parseHours(text string) (h flow.Hours, err error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		return h, fmt.Errorf("no end")
	}
	for _, part := range []struct {
		text string
		to   *int
	}{{from, &h.From}, {to, &h.To}} {
		if part.text == "24:00" {
			*part.to = minutesOfDay
			continue
		}
		at, err := time.Parse("15:04", part.text)
		if err != nil {
			return h, fmt.Errorf("%q is no time of the day", part.text)
		}
		*part.to = at.Hour()*60 + at.Minute()
	}
	if h.From == h.To || h.From == minutesOfDay {
		return h, fmt.Errorf("begin and end are the same")
	}
	return h, nil
}

// DescribeSchedule says when a rule acts: "on mon, tue, 08:00-18:00".
func DescribeSchedule(s *flow.Schedule) string {
	var days, hours []string
	for n := range dayNames {
		if day := (n + 1) % 7; s.Days[day] {
			days = append(days, dayNames[day])
		}
	}
	for _, h := range s.Hours {
		hours = append(hours, fmt.Sprintf("%02d:%02d-%02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60))
	}
	var parts []string
	if len(days) < len(dayNames) {
		parts = append(parts, "on "+strings.Join(days, ", "))
	}
	if len(hours) > 0 {
		parts = append(parts, "at "+strings.Join(hours, ", "))
	}
	if len(parts) == 0 {
		return "always"
	}
	return strings.Join(parts, " ")
}

// DescribeZone names the time zone of a policy.
func DescribeZone(p *flow.Policy) string {
	if p.Zone == nil {
		return "the machine's"
	}
	return p.Zone.String()
}

// usesTime reports whether a policy does something at certain times.
func usesTime(p *flow.Policy) bool {
	return slices.ContainsFunc(p.Rules, func(r flow.Rule) bool { return r.Schedule != nil || r.Action.Quota > 0 })
}
