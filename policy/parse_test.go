// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/fault"
)

// contract is the policy of the documentation.
const contract = `version: 1
rules:                      # first match wins
  - match: {category: voip}
    action: {dscp: EF}
  - match: {category: [streaming, vpn-streaming]}
    action: {rate: 20mbit, scope: class}
  - match: {app: torrent, min_confidence: 0.9}
    action: {drop: true}
protect: [10.0.0.0/24, udp/51820]
default: {pass: true}
`

func TestParse(t *testing.T) {
	got, warnings, err := Parse("policy.yaml", []byte(contract), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := &flow.Policy{
		Rules: []flow.Rule{
			{Categories: []string{"voip"}, Action: flow.Action{DSCP: 46}},
			{Categories: []string{"streaming", "vpn-streaming"}, Action: flow.Action{DSCP: -1, Rate: 20e6, Burst: 625000}},
			{Apps: []string{"torrent"}, MinConfidence: .9, Action: flow.Action{Drop: true, DSCP: -1}},
		},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
		Ports:    []flow.PortProtect{{Proto: flow.UDP, Port: 51820}},
		Source:   []byte(contract),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// one is a policy of one rule.
func timed(schedule string) string {
	return fmt.Sprintf("version: 1\nrules:\n  - match: {app: tor}\n    schedule: %s\n    action: {drop: true}\n", schedule)
}

func one(match, action string) string {
	return fmt.Sprintf("version: 1\nrules:\n  - match: {%s}\n    action: {%s}\n", match, action)
}

// categories returns those that are VPN traffic, or the others.
func categories(vpn bool) []string {
	return slices.DeleteFunc(slices.Clone(flow.Categories), func(name string) bool { return strings.HasPrefix(name, "vpn-") != vpn })
}

func TestRules(t *testing.T) {
	mark := flow.Action{DSCP: 46}
	for _, test := range []struct {
		name, text string
		want       flow.Rule
	}{
		{"vpn", one("vpn: true", "dscp: EF"), flow.Rule{Categories: categories(true), Action: mark}},
		{"no vpn", one("vpn: false", "dscp: EF"), flow.Rule{Categories: append(categories(false), "gaming"), Action: mark}},
		{"vpn narrows", one("category: [voip, vpn-voip], vpn: true", "dscp: EF"), flow.Rule{Categories: []string{"vpn-voip"}, Action: mark}},
		{"every decided flow", one("", "dscp: 46"), flow.Rule{Action: mark}},
		{"final in the match", one("final: false, app: tor", "dscp: ef"), flow.Rule{Apps: []string{"tor"}, Provisional: true, Action: mark}},
		{"final beside the match", "version: 1\nrules:\n- match: {app: tor}\n  final: false\n  action: {dscp: EF}\n",
			flow.Rule{Apps: []string{"tor"}, Provisional: true, Action: mark}},
		{"midstream", one("category: unknown, midstream: true", "drop: true"),
			flow.Rule{Categories: []string{"unknown"}, Midstream: true, Action: flow.Action{Drop: true, DSCP: -1}}},
		{"one-sided", one("category: unknown, one_sided: true", "drop: true"),
			flow.Rule{Categories: []string{"unknown"}, OneSided: true, Action: flow.Action{Drop: true, DSCP: -1}}},
		{"custom label", one("category: gaming", "pass: true"), flow.Rule{Categories: []string{"gaming"}, Action: flow.Action{DSCP: -1}}},
		{"flow scope, burst, mark", one("app: youtube", "rate: 1mbps, burst: 1mb, scope: flow, dscp: CS1"),
			flow.Rule{Apps: []string{"youtube"}, Action: flow.Action{DSCP: 8, Rate: 8e6, Burst: 1 << 20, Scope: flow.ScopeFlow}}},
		{"least burst", one("app: youtube", "rate: 64kbit"),
			flow.Rule{Apps: []string{"youtube"}, Action: flow.Action{DSCP: -1, Rate: 64e3, Burst: 128 << 10}}},
		{"host", one("app: youtube", `rate: 8mbit, scope: host, host_end: near, ipv6_prefix: 64, mark: 0x10, classid: "1:2f"`),
			flow.Rule{Apps: []string{"youtube"}, Action: flow.Action{DSCP: -1, Rate: 8e6, Burst: 250000, Scope: flow.ScopeHost, Near: true, Prefix6: 64,
				Mark: 16, ClassID: 1<<16 | 0x2f}}},
		{"fair, quota, keep_marked", one("app: youtube", "rate: 8mbit, scope: fair, dscp: EF, keep_marked: true, quota: {bytes: 5gb, then: {rate: 8mbit, dscp: LE}}"),
			flow.Rule{Apps: []string{"youtube"}, Action: flow.Action{DSCP: 46, KeepMarked: true, Rate: 8e6, Burst: 250000, Scope: flow.ScopeFair,
				Quota: 5 << 30, Over: flow.Over{DSCP: 1, Rate: 8e6, Burst: 250000}}}},
		{"schedule", timed(`{days: [mon-wed, sat-sun], hours: ["08:00-12:30", "22:00-06:00", "18:00-24:00"]}`),
			flow.Rule{Apps: []string{"tor"}, Action: flow.Action{Drop: true, DSCP: -1}, Schedule: &flow.Schedule{
				Days: [7]bool{true, true, true, true, false, false, true}, Hours: []flow.Hours{{From: 480, To: 750}, {From: 1320, To: 360}, {From: 1080, To: 1440}}}}},
		{"bare rate", one("app: youtube", "rate: 80000000"),
			flow.Rule{Apps: []string{"youtube"}, Action: flow.Action{DSCP: -1, Rate: 8e7, Burst: 2500000}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, warnings, err := Parse("p.yaml", []byte(test.text), Labels{"gaming"})
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if !reflect.DeepEqual(p.Rules, []flow.Rule{test.want}) {
				t.Errorf("got %+v\nwant %+v", p.Rules[0], test.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "p.yaml: the file is empty"},
		{"comment alone", "# nothing\n", "p.yaml: the file is empty"},
		{"no mapping", "hello", `p.yaml:1:1: the policy is "hello"; want a mapping`},
		{"no YAML", "version: 1\nrules: [", "p.yaml:2:8:"},
		{"binary", "\x00\xff\xfe\x01", "p.yaml"},
		{"no version", "rules: []", "version is missing"},
		{"other version", "version: 2", "p.yaml:1:10: unknown version \"2\""},
		{"unknown key", "version: 1\nrulez: []", `p.yaml:2:1: unknown key "rulez" in the policy; did you mean "rules"?`},
		{"unknown match", one("categry: voip", "drop: true"), `p.yaml:3:13: unknown key "categry" in rule 1's match; did you mean "category"?`},
		{"unknown action", one("app: tor", "dropp: true"), `did you mean "drop"?`},
		{"key twice", one("app: tor, app: scp", "drop: true"), "p.yaml:3:"},
		{"unknown category", one("category: viop", "drop: true"), `p.yaml:3:23: unknown category "viop"; did you mean "voip"?`},
		{"app as category", one("category: youtube", "drop: true"), "it is an app\nwrite app: youtube"},
		{"category as app", one("app: voip", "drop: true"), "it is a category\nwrite category: voip"},
		{"label twice", one("app: [tor, tor]", "drop: true"), `app "tor" appears twice`},
		{"empty list", one("app: []", "drop: true"), "app is an empty list"},
		{"null", one("app: ", "drop: true"), "app is empty"},
		{"mapping for a word", one("app: {a: b}", "drop: true"), "app is a mapping"},
		{"vpn of nothing", one("category: voip, vpn: true", "drop: true"), "matches none of the categories voip"},
		{"vpn no bool", one("vpn: maybe", "drop: true"), `vpn is "maybe"; want true or false`},
		{"confidence", one("app: tor, min_confidence: 1.5", "drop: true"), "is not a number from 0 to 1"},
		{"confidence NaN", one("app: tor, min_confidence: NaN", "drop: true"), "is not a number from 0 to 1"},
		{"confidence .nan", one("app: tor, min_confidence: .nan", "drop: true"), "min_confidence"},
		{"no action", "version: 1\nrules:\n  - match: {app: tor}\n", "p.yaml:3:"},
		{"empty action", one("app: tor", ""), "rule 1's action is empty"},
		{"no match", "version: 1\nrules:\n  - action: {drop: true}\n", "rule 1 has no match"},
		{"drop and rate", one("app: tor", "drop: true, rate: 1mbit"), "drop excludes every other action"},
		{"drop and dscp", one("app: tor", "drop: true, dscp: EF"), "drop excludes every other action"},
		{"pass and dscp", one("app: tor", "pass: true, dscp: EF"), "pass excludes every other action"},
		{"drop false", one("app: tor", "drop: false"), "drop: false has no meaning"},
		{"rate unit", one("app: tor", "rate: 20mbits"), `p.yaml:4:20: rate "20mbits": unknown unit "mbits"`},
		{"no rate", one("app: tor", "rate: fast"), `rate "fast": no number`},
		{"negative rate", one("app: tor", "rate: -5mbit"), `rate "-5mbit": no number`},
		{"zero rate", one("app: tor", "rate: 0"), "is not between 1kbit and 1tbit"},
		{"huge rate", one("app: tor", "rate: 99999tbit"), "is not between 1kbit and 1tbit"},
		{"exponent", one("app: tor", "rate: 1e9"), `unknown unit "e9"`},
		{"burst alone", one("app: tor", "burst: 1mb"), "burst is set without a rate"},
		{"scope alone", one("app: tor", "scope: flow, dscp: EF"), "scope is set without a rate"},
		{"burst unit", one("app: tor", "rate: 1mbit, burst: 1mib"), `burst: size "1mib": unknown unit "mib"`},
		{"burst under a packet", one("app: tor", "rate: 1mbit, burst: 100"), "less than one packet"},
		{"burst too big", one("app: tor", "rate: 1mbit, burst: 100gb"), "more than 4 GB"},
		{"scope", one("app: tor", "rate: 1mbit, scope: hosts"), `scope "hosts"; want class, flow, host or fair; did you mean "host"?`},
		{"keep_marked alone", one("app: tor", "keep_marked: true, mark: 1"), "keep_marked is set without a dscp"},
		{"mark", one("app: tor", "mark: -1"), `mark "-1"; want a number from 1 to 0xffffffff`},
		{"mark of received packets", one("app: tor, direction: in", "mark: 1"), "mark acts on sent packets only"},
		{"classid", one("app: tor", `classid: "1:"`), `classid "1:"; want two hexadecimal numbers`},
		{"classid of received packets", one("app: tor, direction: in", `classid: "1:1"`), "classid acts on sent packets only"},
		{"host_end alone", one("app: tor", "rate: 1mbit, host_end: near"), "host_end is set without scope: host, scope: fair or quota"},
		{"host_end", one("app: tor", "rate: 1mbit, scope: fair, host_end: left"), `host_end "left"; want far or near`},
		{"ipv6_prefix", one("app: tor", "rate: 1mbit, scope: host, ipv6_prefix: 129"), `ipv6_prefix "129"; want a number of bits`},
		{"quota without then", one("app: tor", "quota: {bytes: 1gb}"), "quota needs bytes and then"},
		{"quota that does nothing", one("app: tor", "quota: {bytes: 1gb, then: {}}"), "then is empty"},
		{"quota of nothing", one("app: tor", "quota: {bytes: 0, then: {drop: true}}"), `quota "0" is not between`},
		{"quota and drop", one("app: tor", "drop: true, quota: {bytes: 1gb, then: {drop: true}}"), "drop excludes every other action"},
		{"scope beyond a quota", one("app: tor", "quota: {bytes: 1gb, then: {rate: 1mbit, scope: flow}}"), `unknown key "scope" in then`},
		{"empty schedule", timed("{}"), "schedule is empty"},
		{"day", timed("{days: [mon-fry]}"), `unknown day "mon-fry"`},
		{"day twice", timed("{days: [mon-fri, wed]}"), `day "wed" appears twice`},
		{"hours", timed("{hours: 8-18}"), `hours "8-18": "8" is no time of the day`},
		{"no hours", timed(`{hours: "08:00-08:00"}`), "begin and end are the same"},
		{"time zone", "version: 1\ntime_zone: Europe/Berlim\n", `unknown time zone "Europe/Berlim"`},
		{"dscp", one("app: tor", "dscp: AF14"), `unknown DSCP "AF14"; did you mean "AF1`},
		{"dscp number", one("app: tor", "dscp: 64"), `unknown DSCP "64"`},
		{"unparsed", "version: 1\nunparsed: dorp", `unparsed is "dorp"; did you mean "drop"?`},
		{"unparsed list", "version: 1\nunparsed: [drop]", "unparsed is a list"},
		{"default", "version: 1\ndefault: {pass: false}", "default is {pass: true}"},
		{"default drop", "version: 1\ndefault: {drop: true}", `unknown key "drop" in default`},
		{"protect host bits", "version: 1\nprotect: [10.0.0.5/24]", "write 10.0.0.0/24 or 10.0.0.5"},
		{"protect mapped", "version: 1\nprotect: ['::ffff:10.0.0.5']", "write 10.0.0.5"},
		{"protect word", "version: 1\nprotect: [eth0]", `protect "eth0"; want a prefix`},
		{"protect port", "version: 1\nprotect: [tcp/0]", "want a port from 1 to 65535"},
		{"protect range", "version: 1\nprotect: [udp/5000-5100]", "want a port from 1 to 65535\nprotect has no ranges of ports"},
		{"protect twice", "version: 1\nprotect: [tcp/22, TCP/22]", "appears twice"},
		{"two documents", "version: 1\n---\nversion: 1\n", "a second YAML document"},
		{"anchor", "version: 1\nrules:\n  - &a {match: {app: tor}, action: {drop: true}}\n  - *a\n", "anchor"},
		{"rules no list", "version: 1\nrules: {match: {}}", "rules is a mapping; want a list"},
		{"deep", "version: 1\nrules: " + strings.Repeat("[", 1000), "nested more than"},
		{"deep lists", "version: 1\nrules:\n" + strings.Repeat("- ", 33) + "a", "p.yaml:3:65: nested more than 32 deep"},
		{"deep mappings", deepMappings(40), "p.yaml:33:33: nested more than 32 deep"},
		{"deep keys", strings.Repeat("? ", 1000), "p.yaml:1:65: nested more than 32 deep"},
		{"tags", "version: " + strings.Repeat("!!str ", 1000) + "1", "p.yaml:1:10: a YAML anchor, alias, merge or tag"},
		{"merge", "version: 1\nrules:\n- {<<: {}}\n", "p.yaml:3:4: a YAML anchor, alias, merge or tag"},
		{"UTF-16", "\xff\xfev\x00e\x00r\x00", "p.yaml: the file is UTF-16\nsave it as UTF-8"},
		{"Latin-1", "version: 1\n# caf\xe9\n", "p.yaml:2:6: the file is not UTF-8"},
		{"escape", "version: 1\n# \x1b[31m\n", "p.yaml:2:3: control character U+001B"},
		{"long", "version: 1\n" + strings.Repeat("# comment\n", 10000), "more than 65536 bytes"},
		{"too many rules", manyRules(flow.MaxRules + 1), "65 rules; at most 64 are allowed"},
		{"same rule twice", two("app: tor", "app: tor"), "p.yaml:5:5: rule 2 can never match: rule 1 covers it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, _, err := Parse("p.yaml", []byte(test.text), nil)
			if err == nil {
				t.Fatalf("taken: %+v", p)
			}
			if p != nil {
				t.Error("a policy beside the error")
			}
			if said := printed(t, err); !strings.Contains(said, test.want) {
				t.Errorf("got  %s\nwant %s", said, test.want)
			}
		})
	}
}

// deepMappings returns mappings inside each other, one in each line.
func deepMappings(depth int) string {
	var text strings.Builder
	for i := range depth {
		text.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return text.String()
}

// TestEncodings: what editors of Windows write is the same policy, with problems at the same place.
func TestEncodings(t *testing.T) {
	want, _, err := Parse("p.yaml", []byte(contract), nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := one("category: viop", "drop: true")
	for name, encode := range map[string]func(string) string{
		"BOM":          func(s string) string { return "\ufeff" + s },
		"CRLF":         func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"BOM and CRLF": func(s string) string { return "\ufeff" + strings.ReplaceAll(s, "\n", "\r\n") },
		"CR":           func(s string) string { return strings.ReplaceAll(s, "\n", "\r") },
	} {
		p, _, err := Parse("p.yaml", []byte(encode(contract)), nil)
		if err != nil || !reflect.DeepEqual(p, want) {
			t.Errorf("%s: %v, got %+v\nwant %+v", name, err, p, want)
		}
		if _, _, err := Parse("p.yaml", []byte(encode(bad)), nil); err == nil || !strings.Contains(err.Error(), "p.yaml:3:23: unknown category") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLabelsOfModels: a rule with a label that the models never say has a warning that names the model, unless
// something else says it.
func TestLabelsOfModels(t *testing.T) {
	traffic := Model{"cnn-traffic", map[flow.Task][]string{flow.Category: {"voip", "vpn-voip"}}}
	app := Model{"cnn-app", map[flow.Task][]string{flow.App: {"skype"}}}
	for _, test := range []struct {
		match  string
		models []Model
		want   string
	}{
		{"category: voip", []Model{traffic}, ""},
		{"category: unknown", []Model{traffic}, ""},
		{"category: [voip, game, web]", []Model{traffic, app}, `p.yaml:3:30: the model cnn-traffic never says category game: here only a server name, a protocol or an operator decides that p.yaml:3:36: the model cnn-traffic never says category web: here only a server name, a protocol or an operator decides that`},
		{"category: game, source: model", []Model{traffic}, "p.yaml:3:23: the model cnn-traffic never says category game, and the rule acts on no other verdict"},
		{"category: game, source: [model, operator]", []Model{traffic}, "p.yaml:3:23: the model cnn-traffic never says category game: here only an operator decides that"},
		{"category: game, source: [name, protocol]", []Model{traffic}, ""},
		{"category: voip", []Model{app}, "p.yaml:3:23: no model of categories runs (only cnn-app): here only a server name, a protocol or an operator decides voip"},
		{"vpn: true", []Model{traffic}, ""}, // nobody names the labels one by one
		{"app: skype", []Model{traffic, app}, ""},
		{"app: tiktok", []Model{app}, ""}, // the catalogue has it
		{"app: tor", []Model{app}, "p.yaml:3:18: the model cnn-app never says app tor: here only an operator decides that"},
		{"app: tiktok, source: model", []Model{app}, "p.yaml:3:18: the model cnn-app never says app tiktok, and the rule acts on no other verdict"},
		{"category: game", nil, ""},
		{"category: game", []Model{}, "p.yaml:3:23: no model runs: here only an operator decides game"},
		{"app: tiktok", []Model{}, "p.yaml:3:18: no model runs: here only an operator decides tiktok"},
		{"host: 192.0.2.1", []Model{}, ""},
	} {
		options := []Option{WithApps([]string{"tiktok"})}
		if test.models != nil {
			options = append(options, WithModels(test.models...))
		}
		_, warnings, err := Parse("p.yaml", []byte(one(test.match, "dscp: EF")), nil, options...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range warnings {
			got = append(got, w.String())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.match, strings.Join(got, " "), test.want)
		}
	}
}

// printed returns the problems of an error, each with its advice below it, and checks
// that each is one line with its place.
func printed(t *testing.T, err error) string {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not a list of errors: %v", err, err)
	}
	var lines []string
	for _, one := range joined.Unwrap() {
		lines = append(append(lines, one.Error()), fault.Advice(one)...)
	}
	for _, line := range lines {
		if strings.ContainsAny(line, "\n\r") || len(line) > 2*maxText {
			t.Errorf("not one line: %q", line)
		}
	}
	if !strings.HasPrefix(lines[0], "p.yaml:") {
		t.Errorf("%q has no file", lines[0])
	}
	return strings.Join(lines, "\n")
}

func TestManyFaults(t *testing.T) {
	_, _, err := Parse("p.yaml", []byte("a: 1\nb: 2\nc: 3\n"), nil)
	if err == nil {
		t.Fatal("taken")
	}
	const advice = "\nthe keys are version, rules, time_zone, unparsed, protect, default\n"
	want := `p.yaml:1:1: unknown key "a" in the policy` + advice + `p.yaml:2:1: unknown key "b" in the policy` + advice +
		`p.yaml:3:1: unknown key "c" in the policy` + advice + "p.yaml:1:1: version is missing\nwrite version: 1"
	if got := printed(t, err); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "key%d: 1\n", i)
	}
	_, _, err = Parse("p.yaml", []byte(many.String()), nil)
	if n := strings.Count(err.Error(), "\n") + 1; n != maxProblems {
		t.Errorf("%d problems", n)
	}
}

func manyRules(n int) string {
	var text strings.Builder
	text.WriteString("version: 1\nrules:\n")
	for i := range n {
		fmt.Fprintf(&text, "  - match: {category: voip, min_confidence: %.3f}\n    action: {dscp: EF}\n", 1-float64(i)/1000)
	}
	return text.String()
}

func TestMostRules(t *testing.T) {
	p, _, err := Parse("p.yaml", []byte(manyRules(flow.MaxRules)), nil)
	if err != nil || len(p.Rules) != flow.MaxRules {
		t.Fatal(err)
	}
}

// two is a policy of two rules that mark.
func two(first, second string) string {
	return fmt.Sprintf("version: 1\nrules:\n  - match: {%s}\n    action: {dscp: EF}\n  - match: {%s}\n    action: {dscp: CS1}\n", first, second)
}

func TestReachable(t *testing.T) {
	drop := func(first, second, action string) string {
		return fmt.Sprintf("version: 1\nrules:\n  - {match: {%s}, action: {drop: true}}\n  - {match: {%s}, action: {%s}}\n", first, second, action)
	}
	for _, test := range []struct{ name, text, covering string }{
		{"subset", two("category: [voip, chat]", "category: voip"), "1"},
		{"everything", two("", "category: voip"), "1"},
		{"other label", two("category: voip", "category: chat"), ""},
		{"superset", two("category: voip", "category: [voip, chat]"), ""},
		{"all after some", two("category: voip", ""), ""},
		{"narrower by app", two("category: voip", "category: voip, app: skype"), "1"},
		{"other task", two("category: voip", "app: skype"), ""},
		{"vpn covers", two("vpn: true", "category: vpn-voip"), "1"},
		{"higher confidence", two("category: voip", "category: voip, min_confidence: .9"), "1"},
		{"lower confidence", two("category: voip, min_confidence: .9", "category: voip"), ""},
		{"confidence covers", two("category: voip, min_confidence: .5", "category: voip, min_confidence: .9"), "1"},
		{"confidence of any task", two("min_confidence: .5", "category: voip, min_confidence: .9"), "1"},
		{"confidence of another task", two("category: voip, min_confidence: .5", "app: skype, min_confidence: .9"), ""},
		{"confidence of both", two("category: voip, min_confidence: .5", "category: voip, app: skype, min_confidence: .9"), "1"},
		{"provisional after final", two("category: voip", "category: voip, final: false"), ""},
		{"final after provisional", two("category: voip, final: false", "category: voip"), "1"},
		{"drop leaves midstream", drop("category: voip", "category: voip", "dscp: EF"), ""},
		{"drop takes midstream", drop("category: voip, midstream: true, one_sided: true", "category: voip", "dscp: EF"), "1"},
		{"drop leaves one-sided", drop("category: voip, midstream: true", "category: voip", "dscp: EF"), ""},
		{"drop of one-sided after drop", drop("category: voip", "category: voip, one_sided: true", "drop: true"), ""},
		{"drop after drop", drop("category: voip", "category: voip", "drop: true"), "1"},
		{"not what rests", timed("{days: mon}") + "  - match: {app: tor}\n    action: {drop: true}\n", ""},
		{"together", two("category: voip", "category: chat") + "  - match: {category: [chat, voip]}\n    action: {drop: true}\n", "1, 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Parse("p.yaml", []byte(test.text), nil)
			if test.covering == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "can never match") || !strings.Contains(err.Error(), " "+test.covering+" cover") {
				t.Errorf("got %v, want rule(s) %s", err, test.covering)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		one("app: tor", "rate: 100mbit, burst: 256kb"): "p.yaml:4:36: burst 256 KiB is small for 100 Mbit/s",
		one("app: tor, final: false", "drop: true"):    "acts on first guesses",
	} {
		p, warnings, err := Parse("p.yaml", []byte(text), nil)
		if err != nil || p == nil || len(warnings) != 1 || !strings.Contains(warnings[0].String(), want) {
			t.Errorf("got %v %v, want %q", err, warnings, want)
		}
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]uint64{
		"1000": 1000, "8kbit": 8000, "8Kbit": 8000, "20mbit": 20e6, "1.5gbit": 1.5e9, "1tbit": 1e12,
		"1kibit": 1024, "1mibit": 1 << 20, "1gibit": 1 << 30, "1kbps": 8000, "2mbps": 16e6, "1gbps": 8e9, "1mibps": 8 << 20,
		"125bps": 1000, "20 mbit": 20e6,
	} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]uint64{
		"4000": 4000, "1b": 1, "2k": 2048, "2kb": 2048, "1m": 1 << 20, "1MB": 1 << 20, "1g": 1 << 30, "8kbit": 1024, "8mbit": 1 << 20, "0.5k": 512,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestDSCP(t *testing.T) {
	for text, want := range map[string]int{
		"CS0": 0, "DF": 0, "LE": 1, "CS1": 8, "AF11": 10, "af23": 22, "AF43": 38, "VA": 44, "EF": 46, "CS7": 56, "0": 0, "63": 63,
	} {
		if got, err := ParseDSCP(text); err != nil || got != want {
			t.Errorf("ParseDSCP(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for class := 1; class <= 4; class++ {
		for precedence := 1; precedence <= 3; precedence++ { // RFC 2597, section 6
			if got, _ := ParseDSCP(fmt.Sprintf("AF%d%d", class, precedence)); got != 8*class+2*precedence {
				t.Errorf("AF%d%d = %d", class, precedence, got)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	p, _, err := Parse("p.yaml", []byte(contract), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Explain(&out, p); err != nil {
		t.Fatal(err)
	}
	const want = `1. Packets of flows whose category is voip: mark DSCP EF (46).
2. Packets of flows whose category is streaming or vpn-streaming: police to 20 Mbit/s, burst 610.4
   KiB, one bucket for the rule and direction.
3. Packets of flows whose app is torrent and whose confidence is at least 0.9: drop.
Packets that no rule matches pass unchanged.
TCP and UDP packets that cannot be read pass.
Never dropped or policed: ARP, ND, ICMP, 10.0.0.0/24, udp/51820.
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestUnparsed(t *testing.T) {
	for text, want := range map[string]bool{"": false, "unparsed: pass": false, "unparsed: drop": true} {
		p, _, err := Parse("p.yaml", []byte("version: 1\n"+text), nil)
		if err != nil || p.DropUnparsed != want {
			t.Errorf("%q: %+v, %v", text, p, err)
			continue
		}
		var out strings.Builder
		if err := Explain(&out, p); err != nil || strings.Contains(out.String(), "cannot be read are dropped") != want {
			t.Errorf("%q: %s, %v", text, out.String(), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(contract))
	f.Add([]byte(one("vpn: true, final: false", "rate: 1.5gbit, burst: 9mb, scope: flow, dscp: 12")))
	f.Add([]byte(two("category: voip", "")))
	f.Add([]byte(one("name: [a.org, .b.org], host: [10.0.0.0/8], port: [udp/1-2, 5], protocol: tls, direction: in, source: name", "drop: true")))
	for _, template := range Templates() {
		f.Add(template.Text())
	}
	f.Add([]byte("version: 1\nrules:\n  - &a {match: {app: !!str tor}, action: {<<: *a}}\n"))
	f.Add([]byte("version: 1\nrules: |\n  text\nprotect: [::/0, 0.0.0.0/0, udp/1]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, _, err := Parse("p.yaml", data, Labels{"gaming"})
		if err != nil {
			if p != nil {
				t.Errorf("%v beside %q", p, err)
			}
			printed(t, err)
			return
		}
		if len(p.Rules) > flow.MaxRules {
			t.Errorf("%d rules", len(p.Rules))
		}
		for _, rule := range p.Rules {
			a := rule.Action
			if a.Drop && (a.Rate > 0 || a.DSCP >= 0) || (a.Rate > 0) != (a.Burst > 0) || a.DSCP > 63 || a.DSCP < -1 {
				t.Errorf("action %+v", a)
			}
			checkMatch(t, rule)
		}
		if err := Explain(&strings.Builder{}, p); err != nil {
			t.Error(err)
		}
	})
}

// checkMatch checks what the kernel's form of a rule relies on.
func checkMatch(t *testing.T, r flow.Rule) {
	t.Helper()
	for _, name := range r.Names {
		if again, err := parseServerName(name); err != nil || again != name {
			t.Errorf("name %q: %q, %v", name, again, err)
		}
	}
	for _, host := range r.Hosts {
		if !host.IsValid() || host != host.Masked() || host.Addr().Is4In6() {
			t.Errorf("host %v", host)
		}
	}
	for _, port := range r.Ports {
		if again, err := parsePortRange(formatPort(port)); err != nil || again != port || port.First == 0 || port.First > port.Last {
			t.Errorf("port %+v: %+v, %v", port, again, err)
		}
	}
	if len(r.Directions) > 1 || len(r.Names) > flow.MaxMatches || len(r.Hosts) > flow.MaxMatches || len(r.Ports) > flow.MaxMatches {
		t.Errorf("rule %+v", r)
	}
	if text := Sentence(r); text != oneLine(text) && len(text) <= maxText || !strings.HasSuffix(text, ".") {
		t.Errorf("sentence %q", text)
	}
}
