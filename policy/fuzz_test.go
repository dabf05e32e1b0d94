// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/dpclass/dpclass/flow"
)

// FuzzUnits: rates and sizes stay within their limits.
func FuzzUnits(f *testing.F) {
	for _, seed := range []string{"20mbit", "2.5mbps", "64kibit", "1tbit", "256kb", "1m", "4000", "1.", ".5gbit", "9999999999999999999999gbit", "1 mb", "-1kb"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if rate, err := ParseRate(text); err == nil && (rate < MinRate || rate > MaxRate) {
			t.Errorf("rate %q: %d", text, rate)
		}
		if size, err := ParseSize(text); err == nil && size > MaxBurst {
			t.Errorf("size %q: %d", text, size)
		}
	})
}

// FuzzSession: an SSH connection that the environment or the kernel's table of sockets names
// is a flow that a policy can protect.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"192.0.2.7 50000 192.0.2.1 22", "fe80::1%eth0 50000 fe80::2%eth0 22", "::ffff:192.0.2.7 50000 192.0.2.1 22", "fd00::1 1 192.0.2.1 2",
		"   0: 0100007F:0016 0200007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4711 1",
		"   0: 0000000000000000FFFF00000100007F:0016 0000000000000000FFFF00000200007F:C350 01 0:0 0:0 0 0 0 4711 1",
		"   0: 0000000000000000FFFF00000100007F:0016 0200007F:C350 01 0:0 0:0 0 0 0 4711 1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var keys []flow.Key
		if key, ok := SSHFlow(text); ok {
			keys = append(keys, key)
		}
		if key, _, ok := parseSocket(text); ok {
			keys = append(keys, key)
		}
		for _, key := range keys {
			if again, err := flow.ParseKey(key.String()); err != nil || again != key {
				t.Errorf("%q: %q becomes %q, %v", text, key, again, err)
			}
		}
	})
}
