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
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestMatches(t *testing.T) {
	for match, want := range map[string]flow.Rule{
		"protocol: tls":         {Protocols: []flow.Protocol{flow.ProtocolTLS}},
		"protocol: [ssh, quic]": {Protocols: []flow.Protocol{flow.ProtocolSSH, flow.ProtocolQUIC}},
		"name: example.org":     {Names: []string{"example.org"}},
		"name: WWW.Example.ORG": {Names: []string{"www.example.org"}},
		`name: "*.example.org"`: {Names: []string{"example.org"}},
		"name: .example.org":    {Names: []string{"example.org"}},
		"name: example.org.":    {Names: []string{"example.org"}},
		"name: [com, xn--mnchen-3ya.de, _dmarc.a-b.example]": {Names: []string{"com", "xn--mnchen-3ya.de", "_dmarc.a-b.example"}},
		"host: 10.0.0.1":                 {Hosts: prefixes("10.0.0.1/32")},
		"host: fd00::1":                  {Hosts: prefixes("fd00::1/128")},
		`host: ["fd00::/8", 10.0.0.0/8]`: {Hosts: prefixes("fd00::/8", "10.0.0.0/8")},
		"port: 443":                      {Ports: []flow.PortRange{{First: 443, Last: 443}}},
		"port: 5000-5100":                {Ports: []flow.PortRange{{First: 5000, Last: 5100}}},
		"port: [udp/51820, TCP/8000-8100, 1-65535]": {Ports: []flow.PortRange{
			{Proto: flow.UDP, First: 51820, Last: 51820}, {Proto: flow.TCP, First: 8000, Last: 8100}, {First: 1, Last: 65535},
		}},
		"direction: in":        {Directions: []flow.Direction{flow.In}},
		"direction: [out]":     {Directions: []flow.Direction{flow.Out}},
		"direction: [in, out]": {},
		"source: model":        {Sources: []flow.Source{flow.SourceModel}},
		"source: [operator, name, protocol]": {
			Sources: []flow.Source{flow.SourceOperator, flow.SourceName, flow.SourceProtocol},
		},
		"category: [web, game, remote, background]": {Categories: []string{"web", "game", "remote", "background"}},
		"app: netflix, protocol: tls, source: protocol": {
			Apps: []string{"netflix"}, Protocols: []flow.Protocol{flow.ProtocolTLS}, Sources: []flow.Source{flow.SourceProtocol},
		},
	} {
		p, warnings, err := Parse("p.yaml", []byte(one(match, "dscp: EF")), nil)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v %v", match, err, warnings)
			continue
		}
		want.Action = flow.Action{DSCP: 46}
		if !reflect.DeepEqual(p.Rules, []flow.Rule{want}) {
			t.Errorf("%s: got %+v\nwant %+v", match, p.Rules[0], want)
		}
	}
}

func TestMatchFaults(t *testing.T) {
	const at = "p.yaml:3:"
	for match, want := range map[string]string{
		"protocol: tsl":         at + `23: unknown protocol "tsl"; did you mean "tls"?`,
		"protocol: TLS":         `did you mean "tls"?`,
		"protocol: udp":         "it is a transport\nwrite port: udp/1-65535",
		"protocol: voip":        "it is a category\nwrite category: voip",
		"protocol: unknown":     `unknown protocol "unknown"`,
		"protocol: [tls, tls]":  at + `29: protocol "tls" appears twice`,
		"protocol: []":          "protocol is an empty list",
		"category: tls":         "it is a protocol\nwrite protocol: tls",
		"app: wireguard":        "it is a protocol\nwrite protocol: wireguard",
		"name: *.example.org":   `means something else in YAML` + "\n" + `write it without "*.", or in quotes`,
		`name: "www.*.org"`:     `has "*" inside`,
		`name: "*"`:             "names nothing",
		`name: ""`:              "names nothing",
		`name: "*."`:            "names nothing",
		"name: münchen.de":      "is not ASCII\nwrite each such label in ASCII, as servers do: it begins with xn--",
		"name: a..b":            "has an empty label",
		"name: ..b":             "has an empty label",
		"name: a-.org":          "begins or ends with -",
		"name: exa mple.org":    `has the character ' '`,
		`name: "a\x00b"`:        `has the character '\x00'`,
		"name: 10.0.0.1":        "is an address\nwrite host: 10.0.0.1",
		"name: fd00::1":         "is an address\nwrite host: fd00::1",
		"name: 10.0.0.0/8":      "is a prefix\nwrite host: 10.0.0.0/8",
		"name: https://a.org/x": "has a scheme, port or path",
		"name: (hidden)":        "an encrypted name",
		"name: [a.org, .A.org]": `name ".A.org" appears twice`,
		"name: " + strings.Repeat("a", 64) + ".org":  "a label of 64 bytes",
		"name: " + strings.Repeat("a.", 127) + "org": "has 257 bytes; at most 253 are allowed",
		"host: example.org":                          `host "example.org"; want an address or a prefix` + "\nwrite name: example.org",
		"host: 10.0.0.5/24":                          "write 10.0.0.0/24 or 10.0.0.5",
		"host: 10.0.0.0/33":                          "want an address or a prefix",
		"host: 10.0":                                 "want an address or a prefix",
		"host: fe80::1%eth0":                         "want an address or a prefix",
		`host: "::ffff:10.0.0.5"`:                    "write 10.0.0.5",
		"host: [10.0.0.1, 10.0.0.1/32]":              "appears twice",
		"host: [fd00::1, 10.0.0.1]":                  `put an IPv6 address in quotes: "fd00::1"`,
		"host: [::1, 10.0.0.1]":                      `put an IPv6 address in quotes: "fd00::1"`,
		"port: https":                                `port "https"; want numbers from 1 to 65535`,
		"port: 0":                                    "want numbers from 1 to 65535",
		"port: 65536":                                "want numbers from 1 to 65535",
		"port: 0x50":                                 "want numbers from 1 to 65535",
		"port: -5":                                   "want numbers from 1 to 65535",
		"port: 5-":                                   "want numbers from 1 to 65535",
		"port: 1-2-3":                                "want numbers from 1 to 65535",
		"port: tcp/":                                 "want numbers from 1 to 65535",
		"port: tcp/9-5":                              "ends before it begins\nwrite the lower port first: tcp/5-9",
		"port: sctp/80":                              `unknown transport "sctp"`,
		"port: [80, 80-80]":                          `port "80-80" appears twice`,
		"direction: ingress":                         `direction "ingress"; want in or out`,
		"direction: [in, in]":                        `direction "in" appears twice`,
		"source: mdel":                               `unknown source "mdel"; did you mean "model"?`,
		"source: [name, name]":                       `source "name" appears twice`,
		"protocol: [tls, quic], source: protocol":    "source: protocol never fits: tls or quic decides no category",
		"category: web, source: protocol":            "source: protocol never fits: no protocol decides the category web",
		"category: voip, protocol: ssh, source: protocol": "source: protocol never fits: ssh decides the category remote, not voip",
	} {
		p, _, err := Parse("p.yaml", []byte(one(match, "dscp: EF")), nil)
		if err == nil || p != nil {
			t.Errorf("%s: taken: %+v", match, p)
			continue
		}
		if said := printed(t, err); !strings.Contains(said, want) || !strings.HasPrefix(said, at) {
			t.Errorf("%s: got  %s\nwant %s", match, said, want)
		}
	}
}

// TestLineOfFault checks the place of faults in lists over several lines.
func TestLineOfFault(t *testing.T) {
	_, _, err := Parse("p.yaml", []byte(`version: 1
rules:
  - match:
      name:
        - example.org
        - exa_mple..org
      port:
        - 443
        - 99999
    action: {dscp: EF}
`), nil)
	if err == nil {
		t.Fatal("taken")
	}
	said := printed(t, err)
	for _, want := range []string{`p.yaml:6:11: name "exa_mple..org" has an empty label`, `p.yaml:9:11: port "99999"; want numbers`} {
		if !strings.Contains(said, want) {
			t.Errorf("got  %s\nwant %s", said, want)
		}
	}
}

func TestMatchWarnings(t *testing.T) {
	protected := func(match, action string) string {
		return one(match, action) + `protect: [10.0.0.0/8, "fd00::/8", tcp/22, udp/22, tcp/23]` + "\n"
	}
	for text, want := range map[string]string{
		one("name: [example.org, www.example.org]", "dscp: EF"):            `p.yaml:3:33: name "www.example.org" is not needed: the rule matches "example.org" too`,
		one("name: [www.example.org, example.org]", "dscp: EF"):            `name "www.example.org" is not needed`,
		one("port: 80, final: false", "dscp: EF"):                          "p.yaml:3:23: final changes nothing: the rule does not ask for a verdict",
		one("protocol: ssh, category: voip", "dscp: EF"):                   "p.yaml:3:38: ssh decides the category remote; only a server name or the operator can make it voip",
		protected("host: [10.1.0.0/16, \"fd00::1\"]", "drop: true"):        "p.yaml:3:5: rule 1 neither drops nor polices: protect names every host that it matches",
		protected("port: [22, tcp/22-23]", "rate: 1mbit"):                  "protect names every port that it matches",
		protected("host: [10.1.0.0/16, 192.0.2.1]", "drop: true"):          "",
		protected("port: 22-23", "drop: true"):                             "",
		protected("host: 10.1.0.0/16", "dscp: EF"):                         "",
		one("name: [example.org, myexample.org]", "dscp: EF"):              "",
		one("protocol: openvpn, category: vpn-tunnel", "dscp: EF"):         "",
		one("protocol: ssh, category: voip, source: operator", "dscp: EF"): "",
		one("protocol: rtp, category: vpn-voip", "dscp: EF"):               "",
		one("protocol: [ssh, tls], category: voip", "dscp: EF"):            "",
		one("protocol: tls, category: voip", "dscp: EF"):                   "",
		one("category: vpn-tunnel, source: protocol", "dscp: EF"):          "",
		one("protocol: tls, source: [protocol, name]", "dscp: EF"):         "",
	} {
		_, warnings, err := Parse("p.yaml", []byte(text), nil)
		if err != nil {
			t.Errorf("%s%v", text, err)
		} else if want == "" && len(warnings) > 0 || want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].String(), want)) {
			t.Errorf("%sgot %v, want %q", text, warnings, want)
		}
	}
}

func TestMostMatches(t *testing.T) {
	list := func(key string, n int, item string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = fmt.Sprintf(item, i/250+1, i%250+1)
		}
		return key + ": [" + strings.Join(items, ", ") + "]"
	}
	for key, items := range map[string][3]string{
		"name": {"a%d-%d.example", "b%d-%d.example", "one.more"},
		"host": {"10.0.%d.%d", "10.1.%d.%d", "192.0.2.1"},
		"port": {"%d%04d", "%d%04d-65535", "9"},
	} {
		half := flow.MaxMatches / 2
		first, second := list(key, half, items[0]), list(key, half, items[1])
		if _, _, err := Parse("p.yaml", []byte(two(first, second)), nil); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		more := strings.TrimSuffix(second, "]") + ", " + items[2] + "]"
		_, _, err := Parse("p.yaml", []byte(two(first, more)), nil)
		if err == nil || !strings.HasPrefix(err.Error(), "p.yaml:5:") || !strings.Contains(err.Error(), "match 1025 "+key+"s; at most 1024") {
			t.Errorf("%s: %v", key, err)
		}
		_, _, err = Parse("p.yaml", []byte(one(list(key, flow.MaxMatches+1, items[0]), "dscp: EF")), nil)
		if err == nil || !strings.Contains(err.Error(), "has 1025 items; at most 1024 are allowed") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestApps(t *testing.T) {
	apps := WithApps([]string{"zoom", "twitch"})
	for match, want := range map[string]string{
		"app: zoom":              "",
		"app: [twitch, netflix]": "",
		"app: zom":               `did you mean "zoom"?`,
		"category: zoom":         "it is an app\nwrite app: zoom",
	} {
		p, _, err := Parse("p.yaml", []byte(one(match, "dscp: EF")), nil, apps)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", match, err)
		case want != "" && err == nil:
			t.Errorf("%s: taken: %+v", match, p)
		case want != "":
			if said := printed(t, err); !strings.Contains(said, want) {
				t.Errorf("%s: got %s, want %s", match, said, want)
			}
		}
	}
	if _, _, err := Parse("p.yaml", []byte(one("app: zoom", "dscp: EF")), nil); err == nil {
		t.Error("an app of the catalogue is known without it")
	}
	// An app that is also among the labels of an interface is no category.
	p, _, err := Parse("p.yaml", []byte(one("vpn: false", "dscp: EF")), Labels{"zoom", "gaming"}, apps)
	if err != nil || slices.Contains(p.Rules[0].Categories, "zoom") || !slices.Contains(p.Rules[0].Categories, "gaming") {
		t.Errorf("%v: %+v", err, p)
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprintf("service-%d", i)
	}
	_, _, err = Parse("p.yaml", []byte(one("app: nothing-like-it", "dscp: EF")), nil, WithApps(many))
	if err == nil {
		t.Fatal("taken")
	}
	if said := printed(t, err); !strings.Contains(said, `"dpclass names list" shows the apps of the catalogue`) || strings.Contains(said, "service-9") {
		t.Error(said)
	}
}

func TestReachableMatches(t *testing.T) {
	for _, test := range []struct{ first, second, covering string }{
		{"protocol: [tls, quic]", "protocol: tls", "1"},
		{"protocol: tls", "protocol: [tls, quic]", ""},
		{"protocol: tls", "category: web", ""},
		{"category: web", "protocol: tls", ""}, // undecided flows
		{"category: web", "protocol: tls, category: web", "1"},
		{"protocol: tls", "protocol: tls, category: web", "1"},
		{"protocol: tls", "protocol: tls, category: web, final: false", "1"},
		{"", "host: 10.0.0.1", ""}, // undecided flows
		{"", "host: 10.0.0.1, min_confidence: .5", "1"},
		{"host: 10.0.0.1", "", ""},
		{"name: example.org", "name: www.example.org", "1"},
		{"name: example.org", "name: myexample.org", ""},
		{"name: example.org", "name: [www.example.org, example.net]", ""},
		{"name: www.example.org", "name: example.org", ""},
		{"host: 10.0.0.0/8", "host: [10.1.0.0/16, 10.0.0.1]", "1"},
		{"host: 10.1.0.0/16", "host: 10.0.0.0/8", ""},
		{`host: "fd00::/8"`, `host: "fd00::1", port: 80`, "1"},
		{`host: "::/0"`, "host: 10.0.0.1", ""},
		{"port: 1-1000", "port: [80, tcp/443-444]", "1"},
		{"port: tcp/1-1000", "port: 80", ""},
		{"port: udp/80", "port: tcp/80", ""},
		{"port: 1-1000", "port: 999-1001", ""},
		{"direction: out, port: 80", "direction: out, port: 80", "1"},
		{"direction: out, port: 80", "direction: in, port: 80", ""},
		{"direction: out, port: 80", "port: 80", ""},
		{"port: 80", "direction: out, port: 80", "1"},
		{"category: voip, source: [model, name]", "category: voip, source: name", "1"},
		{"category: voip, source: name", "category: voip", ""},
		{"category: voip", "category: voip, source: name", "1"},
		{"app: skype, source: name", "category: voip, app: skype, source: name", ""},
	} {
		_, _, err := Parse("p.yaml", []byte(two(test.first, test.second)), nil)
		if test.covering == "" && err != nil {
			t.Errorf("%s, then %s: %v", test.first, test.second, err)
		}
		if test.covering != "" && (err == nil || !strings.Contains(err.Error(), "p.yaml:5:5: rule 2 can never match: rule 1 covers it")) {
			t.Errorf("%s, then %s: %v", test.first, test.second, err)
		}
	}
	text := two("direction: in, category: voip", "direction: out, category: [voip, chat]") + "  - match: {category: voip}\n    action: {dscp: CS2}\n"
	if _, _, err := Parse("p.yaml", []byte(text), nil); err == nil || !strings.Contains(err.Error(), "p.yaml:7:5: rule 3 can never match: rules 1, 2 cover it") {
		t.Error(err)
	}
}

func TestSentences(t *testing.T) {
	for _, test := range []struct{ match, action, sentence, short string }{
		{"", "dscp: 5", "Packets of all flows with a verdict: mark DSCP 5.", "every decided flow"},
		{"name: netflix.com, direction: out", "drop: true",
			"Packets sent to the network of flows, decided or not, whose server name is netflix.com or below: drop.", "name netflix.com, direction out"},
		{"name: [a.org, b.org], category: web", "drop: true",
			"Packets of flows whose category is web and whose server name is, or is below, a.org or b.org: drop.", "category web, name a.org|b.org"},
		{"direction: in", "pass: true", "Packets received from the network of all flows with a verdict: pass.", "direction in"},
		{`host: [10.0.0.1, "fd00::/8"], port: [443, udp/5000-5100]`, "dscp: EF",
			"Packets of flows, decided or not, that go from or to 10.0.0.1 or fd00::/8 and that use port 443 or UDP ports 5000 to 5100 at either end: mark DSCP EF (46).",
			"host 10.0.0.1|fd00::/8, port 443|udp/5000-5100"},
		{"protocol: [rtp, sip, stun], source: [name, operator], min_confidence: .5, final: false", "dscp: EF",
			"Packets of flows whose protocol is rtp, sip or stun, whose verdict comes from the server name or the operator, whose confidence is at least 0.5 " +
				"and whose verdict is final or provisional: mark DSCP EF (46).",
			"protocol rtp|sip|stun, source name|operator, confidence >= 0.5, provisional too"},
		{"port: [1, 2, 3, 4, 5, 6, 7]", "dscp: EF",
			"Packets of flows, decided or not, that use port 1, port 2, port 3, port 4, port 5, port 6 or port 7 at either end: mark DSCP EF (46).",
			"port 1|2|3|4|5|2 more"},
		{"category: torrent, midstream: true", "drop: true",
			"Packets of flows whose category is torrent: drop, even if the beginning of the TCP connection was not seen.", "category torrent, midstream too"},
		{"category: torrent, one_sided: true", "drop: true",
			"Packets of flows whose category is torrent: drop, even if only one end of the TCP connection was seen.", "category torrent, one-sided too"},
	} {
		p, _, err := Parse("p.yaml", []byte(one(test.match, test.action)), nil)
		if err != nil {
			t.Errorf("%s: %v", test.match, err)
			continue
		}
		if got := Sentence(p.Rules[0]); got != test.sentence {
			t.Errorf("got  %s\nwant %s", got, test.sentence)
		}
		if got := DescribeMatch(p.Rules[0]); got != test.short {
			t.Errorf("got  %s\nwant %s", got, test.short)
		}
	}
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example", i)
	}
	if got := Sentence(flow.Rule{Names: names, Action: passAction}); !strings.HasSuffix(got, "n14.example or 985 more: pass.") {
		t.Error(got)
	}
}

// TestWidth checks that the sentences fit the width, and lose no word.
func TestWidth(t *testing.T) {
	for _, template := range Templates() {
		p, _, err := Parse("p.yaml", template.Text(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := Explain(&out, p); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > maxColumns+1 {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
		whole := strings.Join(strings.Fields(out.String()), " ")
		for i, rule := range p.Rules {
			if !strings.Contains(whole, fmt.Sprintf("%d. %s", i+1, Sentence(rule))) {
				t.Errorf("rule %d is not in %s", i+1, whole)
			}
		}
	}
}

func TestTemplates(t *testing.T) {
	files, err := templateFiles.ReadDir("templates")
	if err != nil || len(files) != len(templates) {
		t.Fatalf("%v: %d files, %d templates", err, len(files), len(templates))
	}
	for _, template := range Templates() {
		p, warnings, err := Parse(template.Name, template.Text(), nil)
		if err != nil || len(warnings) > 0 || len(p.Rules) == 0 {
			t.Errorf("%v %v", err, warnings)
		}
		if !strings.Contains(string(template.Text()), `"dpclass policy init `+template.Name+`"`) {
			t.Errorf("%s does not say where it comes from", template.Name)
		}
		// Each rule is explained by the comment above it.
		lines := strings.Split(string(template.Text()), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "  - match:") && !strings.HasPrefix(lines[i-1], "  # ") {
				t.Errorf("%s:%d: no comment above the rule", template.Name, i+1)
			}
			if len(line) > 90 {
				t.Errorf("%s:%d: %d columns", template.Name, i+1, len(line))
			}
		}
	}
	if _, err := FindTemplate("difserv"); err == nil || !strings.Contains(err.Error(), `did you mean "diffserv"?`) {
		t.Error(err)
	}
}

// TestDiffserv checks that the template says something about every category, and marks
// no category twice.
func TestDiffserv(t *testing.T) {
	template, err := FindTemplate("diffserv")
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := Parse("diffserv", template.Text(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, rule := range p.Rules {
		for _, category := range rule.Categories {
			if _, twice := got[category]; twice {
				t.Errorf("category %s appears twice", category)
			}
			got[category] = rule.Action.DSCP
		}
	}
	// RFC 4594, sections 4.1 to 4.9, and RFC 8622 for LE (1).
	want := map[string]int{
		"voip": 46, "game": 32, "remote": 18, "chat": 18, "streaming": 26, "web": 0, "email": 10, "file-transfer": 10,
		"torrent": 1, "background": 1, "vpn-tunnel": -1,
	}
	for _, category := range flow.Categories {
		wanted, ok := want[category]
		if !ok {
			wanted = want[strings.TrimPrefix(category, "vpn-")]
		}
		if dscp, ok := got[category]; !ok || dscp != wanted {
			t.Errorf("%s: DSCP %d (%t), want %d", category, dscp, ok, wanted)
		}
	}
}
