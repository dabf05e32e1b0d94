// SPDX-License-Identifier: Apache-2.0

package flow

import "testing"

// FuzzParseKey: a FLOW that is taken is one that prints as itself.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{
		"tcp 10.0.0.2:4000 10.0.0.1:80", "udp [fd00::1]:5000 [fd00::2]:4000", "TCP [::ffff:10.0.0.1]:1 10.0.0.2:2", "tcp [fe80::1%eth0]:22 [fe80::2]:5",
		"tcp 10.0.0.1:80 10.0.0.1:80", "udp 1.2.3.4:65536 [::]:0", "tcp 10.0.0.2:4000",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		key, err := ParseKey(expr)
		if err != nil {
			return
		}
		if key.A.Addr().Is4() != key.B.Addr().Is4() || key.A.Addr().Is4In6() || key.A.Addr().Zone() != "" || key.B.Addr().Compare(key.A.Addr()) < 0 {
			t.Errorf("%q: %q", expr, key)
		}
		if again, err := ParseKey(key.String()); err != nil || again != key {
			t.Errorf("%q: %q becomes %q, %v", expr, key, again, err)
		}
	})
}
