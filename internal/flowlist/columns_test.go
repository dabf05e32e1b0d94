// SPDX-License-Identifier: Apache-2.0

package flowlist

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dpclass/dpclass/flow"
)

// tableOf returns the lines of a table.
func tableOf(rows []Row, now time.Time, color bool, width int) []string {
	var lines []string
	// It has no error of its own.
	_ = writeTable(slices.Values(rows), now, color, width, func(line string) error {
		lines = append(lines, line)
		return nil
	})
	return lines
}

// tableRows are flows of all sorts, seen at the time returned.
func tableRows() ([]Row, time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first, second, third := call443(), undecided6(), call443()
	first.Packets, first.Bytes, first.FirstSeen, first.LastSeen = 12345, 9876543, now.Add(-90*time.Second), now.Add(-time.Second)
	first.Dropped, first.Rule, first.RuleOut = 7, 2, 2
	second.RuleOut = 3
	first.Protocol, first.Name, first.NameSource = "tls", "a-host-with-a-long-name.cdn.example.com", "tls"
	first.Source, first.CategorySource, first.AppSource = "name", "name", "name"
	second.Name, second.NameSource = "printer\x1b[31m", "dns"
	second.Packets, second.Bytes, second.FirstSeen, second.LastSeen = 3, 420, now.Add(-26*time.Hour), now.Add(-2*time.Hour)
	third.Final, third.CategoryFinal, third.AppFinal, third.Category, third.CategoryConfidence, third.App = false, false, false, "vpn-streaming", .5, flow.Unknown
	third.Packets, third.Bytes, third.FirstSeen, third.LastSeen = 1, 60, now, now
	return []Row{{first, 12.34e6, 250e3}, {second, 0, 0}, {third, 999, 0}}, now
}

func TestFlowTable(t *testing.T) {
	rows, now := tableRows()
	const want = `
IFACE  PROTO  SOURCE          DESTINATION    NAME                              CATEGORY         %  APP        %  BY     STATE                   RATE   DROP RATE   BYTES  PACKETS  DROPPED  RULE    AGE   IDLE
eth0   tls    10.1.2.3:40000  192.0.2.1:443  …ith-a-long-name.cdn.example.com  voip                skype         name   final            12.3 Mbit/s  250 kbit/s  9.9 MB   12.3 k        7     2  1m30s     1s
eth1   udp    [fd00::1]:5000  [fd00::2]:53   printer\x1b[31m?                  -                   -             -      undecided, idle            -           -   420 B        3        -   -/3  1d02h  2h00m
eth0   tls    10.1.2.3:40000  192.0.2.1:443  video.example.com                 vpn-streaming?  50  unknown?  60  model  guess              999 bit/s           -    60 B        1        -     -     0s     0s
`
	got := "\n" + strings.Join(tableOf(rows, now, false, 0), "\n") + "\n"
	if got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

func TestFlowTableColumns(t *testing.T) {
	rows, now := tableRows()
	titles := tableOf(rows[2:], now, false, 0)[0]
	for _, absent := range []string{"IFACE", "DROPPED", "RULE"} {
		if strings.Contains(titles, absent) {
			t.Errorf("%s says nothing here: %s", absent, titles)
		}
	}
	if lines := tableOf(nil, now, false, 0); len(lines) != 1 {
		t.Errorf("no flows: %q", lines)
	}
}

func TestFlowTableWidth(t *testing.T) {
	rows, now := tableRows()
	for width := 1; width < 160; width++ {
		for _, line := range tableOf(rows, now, false, width) {
			if utf8.RuneCountInString(line) > width {
				t.Fatalf("width %d: %q", width, line)
			}
		}
	}
}

func TestFlowTableKeepsWhatMatters(t *testing.T) {
	rows, now := tableRows()
	got := strings.Join(strings.Fields(tableOf(rows, now, false, 90)[0]), " ")
	if want := "IFACE PROTO SOURCE DESTINATION CATEGORY BY DROPPED RULE"; got != want {
		t.Errorf("titles %q, want %q", got, want)
	}
}

func TestFlowTableColor(t *testing.T) {
	rows, now := tableRows()
	colored := tableOf(rows, now, true, 0)
	for i, line := range tableOf(rows, now, false, 0) {
		if !strings.Contains(colored[i], "\x1b[") {
			t.Errorf("no colour in %q", colored[i])
		}
		if bare := strip(colored[i]); strings.TrimRight(bare, " ") != line {
			t.Errorf("colours change the text:\n%q\n%q", bare, line)
		}
	}
}

// strip removes SGR sequences.
func strip(text string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "\x1b[")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		_, text, _ = strings.Cut(rest, "m")
	}
}
