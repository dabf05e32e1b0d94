// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	for _, test := range []struct{ expr, want string }{
		{"tcp 10.0.0.2:4000 10.0.0.1:80", "tcp 10.0.0.1:80 10.0.0.2:4000"},
		{"TCP 10.0.0.1:80 10.0.0.2:4000", "tcp 10.0.0.1:80 10.0.0.2:4000"},
		{"udp [fd00::1]:5000 [fd00::1]:4000", "udp [fd00::1]:4000 [fd00::1]:5000"},
		{"udp [::ffff:10.0.0.9]:1 10.0.0.1:2", "udp 10.0.0.1:2 10.0.0.9:1"},
	} {
		key, err := ParseKey(test.expr)
		if err != nil {
			t.Fatal(err)
		}
		if key.String() != test.want {
			t.Errorf("ParseKey(%q) = %q, want %q", test.expr, key, test.want)
		}
	}
	for _, bad := range []string{
		"", "tcp", "tcp 10.0.0.1:80", "sctp 10.0.0.1:1 10.0.0.2:2", "tcp 10.0.0.1 10.0.0.2:2",
		"tcp fd00::1:80 [fd00::2]:80", "tcp 10.0.0.1:80 [fd00::1]:80", "tcp 10.0.0.1:99999 10.0.0.2:1",
	} {
		if key, err := ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q) = %v, want an error", bad, key)
		}
	}
}

func TestMakeKeyDirection(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.0.1:9"), netip.MustParseAddrPort("10.0.0.1:10")
	forward, fromA := MakeKey(TCP, a, b, 0)
	back, backFromA := MakeKey(TCP, b, a, 0)
	if forward != back || !fromA || backFromA {
		t.Errorf("directions differ: %v %v, %v %v", forward, fromA, back, backFromA)
	}
}

func TestRecordJSON(t *testing.T) {
	record := Record{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: "tcp"}
	offline, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(offline), "packets_in") || strings.Contains(string(offline), "iface") {
		t.Errorf("an offline flow has fields of a live flow: %s", offline)
	}
	record.Live = &Live{}
	live, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"src", "dst", "src_port", "dst_port", "proto", "category", "category_confidence", "app",
		"app_confidence", "source", "category_source", "app_source", "final", "category_final", "app_final", "packets", "bytes", "packets_in", "bytes_in", "packets_out", "bytes_out",
		"protocol", "name", "name_source", "ja4",
		"dropped", "samples", "first_seen", "last_seen"} {
		if !strings.Contains(string(live), `"`+name+`":`) {
			t.Errorf("field %q is missing in %s", name, live)
		}
	}
}

func TestTaskText(t *testing.T) {
	for _, task := range Tasks {
		text, err := json.Marshal(map[Task]Task{task: task})
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"` + task.String() + `":"` + task.String() + `"}`; string(text) != want {
			t.Errorf("task %d is %s in JSON, want %s", task, text, want)
		}
		var read map[Task]Task
		if err := json.Unmarshal(text, &read); err != nil || read[task] != task || len(read) != 1 {
			t.Errorf("%s is read as %v, %v", text, read, err)
		}
	}
	if _, err := ParseTask("mood"); err == nil {
		t.Error(`ParseTask("mood"): no error`)
	}
}

func TestVerdictsFinal(t *testing.T) {
	none := Verdict{}
	open := Verdict{Label: "voip", Source: SourceModel}
	final := Verdict{Label: "voip", Source: SourceModel, Final: true}
	for _, test := range []struct {
		category, app Verdict
		want          bool
	}{
		{none, none, false}, {open, none, false}, {final, none, true}, {none, final, true}, {final, open, false}, {final, final, true},
	} {
		verdicts := Verdicts{Category: test.category, App: test.app}
		if got := verdicts.Final(); got != test.want {
			t.Errorf("%+v: final %v, want %v", verdicts, got, test.want)
		}
		var record Record
		if record.SetVerdicts(&verdicts); record.Final != test.want || record.CategoryFinal != test.category.Final || record.AppFinal != test.app.Final {
			t.Errorf("%+v: record %+v", verdicts, record)
		}
	}
}
