// SPDX-License-Identifier: Apache-2.0

package nanos

import (
	"testing"
	"time"
)

func TestPack(t *testing.T) {
	for _, want := range []time.Time{{}, time.Unix(0, 0).UTC(), time.Unix(0, -1).UTC(), time.Date(2262, 1, 1, 0, 0, 0, 7, time.UTC)} {
		if got := Unpack(Pack(want)); !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%v comes back as %v", want, got)
		}
	}
}
