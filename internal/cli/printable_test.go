// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dpclass/dpclass/internal/fault"
)

const hostile = "\x1b]0;owned\a\x7f\u009b2J\u202eabc\U000e0001 Grüße"

// unprintable returns the first character that a terminal must not get.
func unprintable(text string) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); fault.Printable(line) != line {
			return fmt.Sprintf("%q", line)
		}
	}
	return ""
}

// Neither errors and advice, nor progress, nor JSON hand a terminal what it obeys.
func TestNothingControlsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	printError(&out, "dpclass", fault.Advise(fmt.Errorf("file %s: %w", hostile, errors.New(hostile)), "rename %s", hostile))
	progress := NewProgress(&out, "captures", 3)
	progress.Note("warning: %s", hostile)
	progress.next = progress.began
	progress.Step(1, hostile)
	if bad := unprintable(out.String()); bad != "" || strings.Count(out.String(), "owned") != 5 {
		t.Errorf("%s in %q", bad, out.String())
	}
	out.Reset()
	if err := PrintJSON(&out, map[string]string{"name": hostile}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["name"] != hostile || unprintable(out.String()) != "" {
		t.Errorf("%v: %q became %q", err, hostile, out.String())
	}
}
