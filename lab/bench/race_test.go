// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"
)

// TestRace: packets on two CPUs against a writer, on the fast and on the general way. `dplab bench race` does it for longer.
func TestRace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, needs root: the bench makes namespaces and loads BPF programs")
	}
	for _, o := range []RaceOptions{{Delays: true}, {}, {NoFastPath: true}} {
		t.Run(fmt.Sprintf("delays %v, no fast path %v", o.Delays, o.NoFastPath), func(t *testing.T) {
			o.Duration, o.Log = 5*time.Second, slog.New(slog.DiscardHandler)
			r, err := Race(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", r)
			if r.Packets == 0 || r.Lives == 0 || r.Compared == 0 || r.Policies < 2 {
				t.Errorf("it tested nothing: %+v", r)
			}
		})
	}
}
