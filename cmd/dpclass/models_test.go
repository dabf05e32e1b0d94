// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/dpclass/dpclass/classifier/model"
)

func TestModelsListAndShow(t *testing.T) {
	code, out, errOut := offlineRun(t, "models", "list")
	if code != 0 || !strings.Contains(out, "CAPTURE SPLIT") || !strings.Contains(out, "* ") {
		t.Errorf("exit %d, %q, %q", code, out, errOut)
	}
	for _, name := range model.Shipped() {
		code, text, errOut := offlineRun(t, "models", "show", name)
		if code != 0 || !strings.Contains(out, name) {
			t.Fatalf("%s: exit %d, %q", name, code, errOut)
		}
		for _, says := range []string{"weaknesses\n- ", "licence  ", "validation", "  split"} {
			if !strings.Contains(text, says) {
				t.Errorf("%s: %q is missing in:\n%s", name, says, text)
			}
		}
	}
}
