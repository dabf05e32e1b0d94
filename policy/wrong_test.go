// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/flow"
)

func TestMisjudged(t *testing.T) {
	p, _, err := Parse("p.yaml", []byte(`version: 1
rules:
  - match: {host: 192.0.2.1}
    action: {drop: true}
  - match: {category: chat}
    action: {dscp: EF}
  - match: {category: [chat, voip], min_confidence: 0.8}
    action: {dscp: EF}
  - match: {category: email, source: name}
    action: {dscp: EF}
  - match: {app: skype}
    action: {dscp: EF}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := Misjudged(p, "mine", map[flow.Task]Confusion{flow.Category: {
		Labels: []string{"chat", "voip", "email"}, Matrix: [][]int{{80, 15, 5}, {10, 30, 0}, {1, 3, 6}}, Data: "flows of a test",
	}})
	want := []Mistakes{
		{Rule: 2, Model: "mine", Data: "flows of a test", Wrong: []Share{{"voip", .25, 40}, {"email", .1, 10}}, Missed: []Share{{"chat", .2, 100}}},
		// Rule 2 has taken what the model calls chat.
		{Rule: 3, Model: "mine", Data: "flows of a test", Wrong: []Share{{"email", .3, 10}}, Missed: []Share{{"chat", .85, 100}, {"voip", .25, 40}}, Ignored: "min_confidence"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	var out strings.Builder
	if err := ExplainMistakes(&out, "mine", got); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2. would hit wrongly: 25.0 % of voip (40 flows), 10.0 % of email (10 flows).", "leaves aside its min_confidence", "measured on flows of"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
