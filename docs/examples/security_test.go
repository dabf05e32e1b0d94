// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named is a test as docs/security.md names it: package: Test/Subtest.
var named = regexp.MustCompile("`([a-z0-9/]+): ((?:Test|Fuzz)[A-Za-z0-9]+)((?:/[A-Za-z0-9]+)*)`")

// TestSecurity: each claim of docs/security.md names tests that exist, or is a limit.
func TestSecurity(t *testing.T) {
	page, err := os.ReadFile("../security.md")
	if err != nil {
		t.Fatal(err)
	}
	claims, shows := 0, false
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		last := strings.TrimSpace(cells[len(cells)-1])
		switch {
		case !strings.HasPrefix(line, "|"):
			shows = false
			continue
		case last == "shown by":
			shows = true
			continue
		case strings.HasPrefix(line, "|---"), !shows:
			continue
		}
		claims++
		tests := named.FindAllStringSubmatch(last, -1)
		if len(tests) == 0 && last != "limit" {
			t.Errorf("neither a test nor a limit: %s", line)
		}
		for _, test := range tests {
			source := testsOf(t, test[1])
			if !regexp.MustCompile(`(?m)^func ` + test[2] + `\(`).MatchString(source) {
				t.Errorf("package %s has no %s", test[1], test[2])
			}
			for sub := range strings.SplitSeq(strings.Trim(test[3], "/"), "/") {
				if sub != "" && !strings.Contains(source, `{"`+sub+`", test`) && !strings.Contains(source, `t.Run("`+sub+`"`) {
					t.Errorf("package %s has no %s%s", test[1], test[2], test[3])
				}
			}
		}
		if rest := strings.Trim(named.ReplaceAllString(last, ""), ", "); len(tests) > 0 && rest != "" {
			t.Errorf("%q is no test", rest)
		}
	}
	if claims < 30 {
		t.Errorf("only %d claims", claims)
	}
}

// testsOf returns the text of a package's tests.
func testsOf(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
