// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dpclass/dpclass/flow"
)

func record() flow.Record {
	first := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return flow.Record{
		Iface: "eth0", Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("10.0.0.1"), SrcPort: 4000, DstPort: 443,
		Proto: "tcp", Category: "streaming", App: "youtube", Packets: 7, Bytes: 700, FirstSeen: first, LastSeen: first.Add(time.Second),
		Live: &flow.Live{Ended: "fin", Generation: 3},
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	s, err := New("json", &out, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Write(t.Context(), record()); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2: %s", len(lines), out.String())
	}
	var got flow.Record
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil || !reflect.DeepEqual(got, record()) {
		t.Errorf("%v: read back %+v", err, got)
	}
}

// broken is a pipe whose reader has gone.
type broken struct{}

var errBroken = errors.New("broken pipe")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestJSONFailure(t *testing.T) {
	s, err := New("json", broken{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), record()); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

func TestText(t *testing.T) {
	var log, out bytes.Buffer
	s, err := New("text", &out, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	offline := record()
	offline.Live = nil
	for _, r := range []flow.Record{record(), offline} {
		if err := s.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{`flow="tcp 10.0.0.1:443 10.0.0.2:4000"`, "ended=fin", "category=streaming", "bytes=700"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, &log)
		}
	}
	if out.Len() > 0 {
		t.Errorf("standard output has %q", &out)
	}
}

func TestNames(t *testing.T) {
	for _, name := range Names() {
		s, err := New(name, &bytes.Buffer{}, slog.New(slog.DiscardHandler))
		if err != nil || s.Name() != name {
			t.Errorf("%q: %v, %v", name, s, err)
		}
	}
	if s, err := New("xml", nil, nil); err == nil {
		t.Errorf("got %v for a name that there is not", s)
	}
}
