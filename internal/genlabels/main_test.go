// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpToDate: the committed files are what the label file and the protocol file give.
func TestUpToDate(t *testing.T) {
	const root = "../.."
	for source, generate := range map[string]func([]byte) (map[string][]byte, error){
		source: generate, protocolSource: generateProtocols,
	} {
		text, err := os.ReadFile(filepath.Join(root, source))
		if err != nil {
			t.Fatal(err)
		}
		files, err := generate(text)
		if err != nil || len(files) != 2 {
			t.Fatalf("%s: %d files, %v", source, len(files), err)
		}
		for name, want := range files {
			got, err := os.ReadFile(filepath.Join(root, name))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is out of date: run make generate (%v)", name, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	const good = "0 none undecided\n1 none unknown\n2 category chat\n"
	if _, err := parse([]byte(good + "3 category e-mail\n3 app e-mail\n")); err != nil {
		t.Errorf("a label of both tasks: %v", err)
	}
	for lines, want := range map[string]string{
		"2 app mail":        "belongs to",
		"3 app chat":        "has number 2",
		"4 app mail":        "number 3 has no label",
		"128 app mail":      "want 0 to 127",
		"3 app":             "2 words",
		"3 protocol mail":   `task "protocol"`,
		"3 app Mail":        `name "Mail"`,
		"3 app 3mail":       `name "3mail"`,
		"three app mail":    `number "three"`,
		"3 app mail reader": "4 words",
	} {
		if _, err := parse([]byte(good + lines)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", lines, err, want)
		}
	}
}
