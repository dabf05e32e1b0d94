// SPDX-License-Identifier: Apache-2.0

package picture

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

const typescript = "before\r\n==> one\r\n\x1b[?1049hlive table\x1b[?1049l\x1b[1;32mgreen\x1b[0m <plain>\r\n==> two\r\n"

func TestDraw(t *testing.T) {
	var out strings.Builder
	if err := (Part{From: "==> one", To: "==> two", Width: 11}).Draw(strings.NewReader(typescript), &out); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	decoder := xml.NewDecoder(strings.NewReader(out.String()))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, out.String())
		}
		if data, ok := token.(xml.CharData); ok {
			text.Write(data)
		}
	}
	if got := strings.Join(strings.Fields(text.String()), " "); got != "==> one green <plai" { // cut to 11 columns
		t.Errorf("text %q", got)
	}
	if !strings.Contains(out.String(), `font-weight="bold" fill="#7ee787">green<`) {
		t.Errorf("the colour is missing:\n%s", out.String())
	}
}

func TestNote(t *testing.T) {
	for _, note := range []string{"", "columns <a> & b"} {
		var out strings.Builder
		if err := (Part{Width: 80, Note: note}).Draw(strings.NewReader(typescript), &out); err != nil {
			t.Fatal(err)
		}
		if got, err := Note(strings.NewReader(out.String())); got != note || err != nil {
			t.Errorf("the note is %q (%v), want %q", got, err, note)
		}
	}
}

// The README's pictures show what this version prints.
func TestPicturesAreCurrent(t *testing.T) {
	origin, err := Origin()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../../docs/flows.svg", "../../docs/policy.svg"} {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		note, err := Note(file)
		_ = file.Close()
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if note != origin {
			t.Errorf("%s is out of date, run make picture: it was\n%s\nbut now it is\n%s", path, note, origin)
		}
	}
}

func TestDrawNothing(t *testing.T) {
	if err := (Part{From: "==> three", Width: 80}).Draw(strings.NewReader(typescript), io.Discard); err == nil {
		t.Error("no error for a text that is not there")
	}
}
