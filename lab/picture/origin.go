// SPDX-License-Identifier: Apache-2.0

package picture

import (
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dpclass/dpclass/internal/flowlist"
	"github.com/dpclass/dpclass/models"
)

// Origin says what a picture of this program's output depends on: the sha256 of the
// default model, which decides what the tables say, and the titles of the table of
// flows. A picture with another origin is out of date.
func Origin() (string, error) {
	model, err := models.Files.ReadFile("default.onnx")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("made with model %x and columns %s", sha256.Sum256(model), strings.Join(flowlist.Titles(), " ")), nil
}

// Note returns the note of a picture, "" if it has none.
func Note(svg io.Reader) (string, error) {
	for decoder := xml.NewDecoder(svg); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "desc" {
			var note string
			return note, decoder.DecodeElement(&note, &start)
		}
	}
}
