// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// call443 is a decided flow.
func call443() *flow.Record {
	return &flow.Record{
		Iface: "eth0", Src: netip.MustParseAddr("10.1.2.3"), Dst: netip.MustParseAddr("192.0.2.1"), SrcPort: 40000, DstPort: 443,
		Proto: "tcp", Category: "voip", CategoryConfidence: .97, App: "skype", AppConfidence: .6, Source: "model", CategorySource: "model", AppSource: "model",
		Protocol: "tls", Name: "video.example.com", NameSource: "tls",
		Final: true, CategoryFinal: true, AppFinal: true,
		Live: &flow.Live{Model: "default"},
	}
}

// undecided6 is an IPv6 flow without a verdict that has ended.
func undecided6() *flow.Record {
	return &flow.Record{
		Iface: "eth1", Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), SrcPort: 5000, DstPort: 53,
		Proto: "udp", Live: &flow.Live{Ended: "idle", Midstream: true},
	}
}

func TestFilter(t *testing.T) {
	for _, test := range []struct {
		expr             string
		first, undecided bool
	}{
		{"", true, true},
		{"port:443", true, false},
		{"port:40000", true, false},
		{"sport:443", false, false},
		{"dport:443,53", true, true},
		{"src:10.0.0.0/8", true, false},
		{"src:10.1.2.3", true, false},
		{"dst:10.0.0.0/8", false, false},
		{"host:fd00::2", false, true},
		{"host:[fd00::2]", false, true},
		{"host:fd00::/8,10.1.2.3", true, true},
		{"proto:udp", false, true},
		{"proto:TCP", true, false},
		{"iface:eth1", false, true},
		{"category:voip", true, false},
		{"category:chat,voip", true, false},
		{"category:none", false, true},
		{"app:skype category:voip", true, false},
		{"app:skype category:chat", false, false},
		{"!app:skype", false, true},
		{"final:true", true, false},
		{"vpn:true", false, false},
		{"midstream:true", false, true},
		{"protocol:tls,quic", true, false},
		{"protocol:none", false, true},
		{"name:example.com", true, false},
		{"name:*.example.com", true, false},
		{"name:xample.com", false, false},
		{"name:none", false, true},
		{"video.exam", true, false},
		{"source:name", false, false},
		{"source:model", true, false},
		{"source:none", false, true},
		{"source:operator", false, false},
		{"model:default", true, false},
		{"ended:none", true, false},
		{"ended:fin,idle", false, true},
		{"sky", true, false},
		{"192.0", true, false},
		{"!sky proto:udp", false, true},
	} {
		keep, err := ParseFilter(test.expr, filterLabels)
		if err != nil {
			t.Errorf("%q: %v", test.expr, err)
			continue
		}
		if got := keep(call443()); got != test.first {
			t.Errorf("%q takes the decided flow: %t", test.expr, got)
		}
		if got := keep(undecided6()); got != test.undecided {
			t.Errorf("%q takes the undecided flow: %t", test.expr, got)
		}
	}
}

var filterLabels = []string{"voip", "chat", "skype"}

func TestBadFilter(t *testing.T) {
	for expr, want := range map[string]string{
		"category=voip":       "a colon between its parts",
		"bytes>1000":          "a colon between its parts",
		"port!=443":           "a colon between its parts",
		"port:443 or port:80": `"or" has no meaning here`,
		"voip AND skype":      `"AND" has no meaning here`,
		"category:viop":       `no flow can have this label; did you mean "voip"?`,
		"!app:skipe":          `no flow can have this label; did you mean "skype"?`,
		"category:voip,chatt": `no flow can have this label; did you mean "chat"?`,
		"prt:1":               `did you mean "port"?`,
		"port:https":          "want a port",
		"port:70000":          "want a port",
		"port:":               "no value after",
		"port:1,,2":           "no value after",
		"src:10.0.0":          "want an address or a prefix",
		"final:perhaps":       "want true or false",
		"proto:icmp":          "want tcp, udp",
		"!":                   "! has no word after it",
		"ended:never":         "want fin, rst, idle, none",
		"source:oracle":       "want name, protocol, model, operator, none",
	} {
		_, err := ParseFilter(expr, filterLabels)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", expr, err, want)
		}
	}
}

func TestFilterHelp(t *testing.T) {
	for _, word := range FilterWords() {
		if !strings.Contains(FilterHelp, word+":") {
			t.Errorf("%q is not documented", word)
		}
	}
}
