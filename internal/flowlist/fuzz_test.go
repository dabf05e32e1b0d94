// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// FuzzParseFilter: an expression is an error or a filter that takes any record, and its
// negation takes the others.
func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{
		"", "category:voip,chat !app:skype", "host:10.0.0.0/8 port:443", "src:fd00::1 dport:1-2", "name:example.org proto:udp", "!final:true", "state:!", "a||b", "x=y",
		"protocol:tls source:name vpn:false ended:fin text", "category:", ":", "!!host:::/0", "bytes:>5",
	} {
		f.Add(seed)
	}
	empty, full := flow.Record{}, flow.Record{Iface: "eth0", Category: "voip", Live: &flow.Live{}}
	f.Fuzz(func(t *testing.T, expr string) {
		filter, err := ParseFilter(expr, flow.Vocabulary)
		if err != nil {
			if filter != nil {
				t.Errorf("%q: a filter beside %v", expr, err)
			}
			return
		}
		not, notErr := parseFilterWord("!"+expr, flow.Vocabulary)
		_, wordErr := parseFilterWord(expr, flow.Vocabulary)
		if (notErr == nil) != (wordErr == nil) {
			t.Errorf("%q: %v, negated %v", expr, wordErr, notErr)
		}
		for _, r := range []*flow.Record{&empty, &full} {
			got := filter(r)
			if one, err := parseFilterWord(expr, flow.Vocabulary); err == nil && notErr == nil && one(r) == not(r) {
				t.Errorf("%q and its negation agree on %+v", expr, r)
			}
			if again := filter(r); again != got {
				t.Errorf("%q: %v, then %v", expr, got, again)
			}
		}
	})
}
