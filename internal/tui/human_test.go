// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"testing"
	"time"
)

func TestHuman(t *testing.T) {
	for want, got := range map[string]string{
		"0 B": Bytes(0), "999 B": Bytes(999), "1.0 kB": Bytes(1000), "123 MB": Bytes(123456789), "18447 PB": Bytes(1<<64 - 1),
		"9999": Count(9999), "10.0 k": Count(10000), "100 Gbit/s": Rate(1e11),
		"59s": Age(59 * time.Second), "1m00s": Age(time.Minute), "23h59m": Age(24*time.Hour - time.Second), "0s": Age(-time.Second),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
