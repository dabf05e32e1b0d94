// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"testing"
)

func TestLines(t *testing.T) {
	p, _, err := Parse("p.yaml", []byte(contract), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`{"rule":1,"category":["voip"],"min_confidence":0,"final":true,"midstream":false,"one_sided":false,"drop":false,"dscp":46,` +
			`"sentence":"Packets of flows whose category is voip: mark DSCP EF (46)."}`,
		`{"rule":2,"category":["streaming","vpn-streaming"],"min_confidence":0,"final":true,"midstream":false,"one_sided":false,"drop":false,` +
			`"rate_bps":20000000,"burst_bytes":625000,"scope":"class",` +
			`"sentence":"Packets of flows whose category is streaming or vpn-streaming: police to 20 Mbit/s, burst 610.4 KiB, one bucket for the rule and direction."}`,
		`{"rule":3,"app":["torrent"],"min_confidence":0.9,"final":true,"midstream":false,"one_sided":false,"drop":true,` +
			`"sentence":"Packets of flows whose app is torrent and whose confidence is at least 0.9: drop."}`,
	} {
		if got, err := json.Marshal(Lines(p)[i]); err != nil || string(got) != want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, want)
		}
	}
}

func TestSSHFlow(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.9 50000 10.0.0.1 22":        "tcp 10.0.0.1:22 203.0.113.9:50000",
		"fd00::9 50000 fd00::1 22":             "tcp [fd00::1]:22 [fd00::9]:50000",
		"::ffff:203.0.113.9 50000 10.0.0.1 22": "tcp 10.0.0.1:22 203.0.113.9:50000",
	} {
		if key, ok := SSHFlow(text); !ok || key.String() != want {
			t.Errorf("%q: %v", text, key)
		}
	}
	for _, text := range []string{"", "a b c d", "10.0.0.1 99999 10.0.0.2 22", "10.0.0.1 1 10.0.0.2"} {
		if key, ok := SSHFlow(text); ok {
			t.Errorf("%q: %v", text, key)
		}
	}
}
