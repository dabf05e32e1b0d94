// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/classifier/model"
)

func TestModelsListAndShow(t *testing.T) {
	code, out, errOut := offlineRun(t, "models", "list")
	if code != 0 || !strings.Contains(out, "CAPTURE SPLIT") || !strings.Contains(out, "*  default") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	// The test binary has no models beside it.
	const paper = "../../models/paper"
	names := model.Shipped(paper)
	if len(names) != 5 {
		t.Errorf("models %q, want five", names)
	}
	for _, name := range names {
		m, err := model.Load(name, paper)
		if err != nil {
			t.Fatal(err)
		}
		if m.Path != "" {
			name = m.Path
		}
		code, text, errOut := offlineRun(t, "models", "show", name)
		if code != 0 {
			t.Fatalf("%s: exit %d, %q", name, code, errOut)
		}
		first, _, _ := strings.Cut(text, "\n")
		if got := strings.Fields(first); !slices.Equal(got, []string{"name", m.Name}) {
			t.Errorf("%s: the first line is %q", name, first)
		}
		for _, says := range []string{m.SHA256, "weaknesses\n- ", "licence  ", " split:", "  split"} {
			if !strings.Contains(text, says) {
				t.Errorf("%s: %q is missing in:\n%s", name, says, text)
			}
		}
	}
}
