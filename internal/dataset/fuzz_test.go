// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"strings"
	"testing"
)

// FuzzManifest: the captures of a manifest have a path each, no two the same.
func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		"path,category,app\na.pcap,voip,skype\n", "\ufeffpath,category,app,set,vpn,capture,use\n\"a,b\",chat,,s,1,c,test\nb,,x,,true,,\n", "path,category\n", "path,path,app,category\n",
		"path,category,app\n\"a\n", "path,category,app,vpn\n../../x,a,b,maybe\n", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		captures, err := parseManifest("m.csv", "/root/of", []byte(text))
		if err != nil {
			if captures != nil || !strings.Contains(err.Error(), "m.csv") {
				t.Errorf("%v beside %q", captures, err)
			}
			return
		}
		seen := map[string]bool{}
		for _, c := range captures {
			if c.Path == "" || c.Name == "" || c.File == "" || seen[c.Path] {
				t.Errorf("%+v", c)
			}
			seen[c.Path] = true
		}
	})
}
