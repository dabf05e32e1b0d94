// SPDX-License-Identifier: Apache-2.0

// Package sink has the exporters of flow records that "dpclass attach --log-format"
// chooses from. A new exporter is a type with the methods of [agent.Sink] and a line
// in the table of this file.
package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/flow"
)

// exporters are the exporters by name, in the order of the help text.
var exporters = []struct {
	name string
	open func(out io.Writer, log *slog.Logger) agent.Sink
}{
	{"text", func(_ io.Writer, log *slog.Logger) agent.Sink { return text{log} }},
	{"json", func(out io.Writer, _ *slog.Logger) agent.Sink { return jsonLines{json.NewEncoder(out)} }},
}

// Names returns the names of the exporters.
func Names() []string {
	var names []string
	for _, e := range exporters {
		names = append(names, e.name)
	}
	return names
}

// New returns the exporter with the given name, or an error if there is none. "text"
// writes debug messages to log. "json" writes one JSON object per line to out, which
// it does not close.
func New(name string, out io.Writer, log *slog.Logger) (agent.Sink, error) {
	for _, e := range exporters {
		if e.name == name {
			return e.open(out, log), nil
		}
	}
	return nil, fmt.Errorf("exporter %q: want one of %s", name, strings.Join(Names(), ", "))
}

// text logs each flow at debug level.
type text struct{ log *slog.Logger }

func (text) Name() string                { return "text" }
func (text) Close(context.Context) error { return nil }

func (s text) Write(ctx context.Context, r flow.Record) error {
	var ended string
	if r.Live != nil {
		ended = r.Ended
	}
	s.log.DebugContext(ctx, "flow ended", "iface", r.Iface, "flow", r.Key().String(), "ended", ended,
		"category", r.Category, "app", r.App, "packets", r.Packets, "bytes", r.Bytes)
	return nil
}

// jsonLines writes the records as "dpclass flows -o json" prints them.
type jsonLines struct{ encoder *json.Encoder }

func (jsonLines) Name() string                { return "json" }
func (jsonLines) Close(context.Context) error { return nil }

func (s jsonLines) Write(_ context.Context, r flow.Record) error { return s.encoder.Encode(r) }
