// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"strings"
	"testing"
)

// FuzzPinName: the directory of an interface's pins gives back its name, whatever characters
// the kernel allows in one, and is one that bpffs takes.
func FuzzPinName(f *testing.F) {
	for _, seed := range []string{"eth0", "eth0.100", "wg#1", "a@b", "x%2ey", "..", "%", "br-\u00e4", "a%25", "veth@if2#3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		// dev_valid_name of net/core/dev.c: no slash, colon or blank, at most 15 bytes.
		if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
			return
		}
		for _, suffix := range []string{"", "@17", "#3", "#3@17"} {
			entry := escapes.Replace(name) + suffix
			if strings.ContainsAny(entry, "./") {
				t.Errorf("%q: directory %q", name, entry)
			}
			if got := root("/nowhere").place(entry).name; got != name {
				t.Errorf("%q: directory %q is that of %q", name, entry, got)
			}
			if at := strings.IndexByte(suffix, '@'); at >= 0 && ending(entry) != suffix[at:] || at < 0 && ending(entry) != "" {
				t.Errorf("%q: ending %q", entry, ending(entry))
			}
		}
	})
}
