// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"embed"
	"fmt"
	"slices"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
)

//go:embed templates/*.yaml
var templateFiles embed.FS

// Template is a commented policy file to start from.
type Template struct {
	Name    string `json:"name"`
	Summary string `json:"summary"` // what it is for, in one line
	text    []byte
}

// Text returns the policy file.
func (t Template) Text() []byte { return slices.Clone(t.text) }

// templates are the files in the folder templates, which have the extension .yaml.
var templates = []Template{
	{Name: "diffserv", Summary: "a DSCP for each kind of traffic: voice, video, interactive, best effort, bulk, background"},
	{Name: "examples", Summary: "a rule for each match and action"},
}

// Templates returns all templates.
func Templates() []Template {
	all := slices.Clone(templates)
	for i := range all {
		all[i].text = readTemplate(all[i].Name)
	}
	return all
}

// FindTemplate returns the template of that name.
func FindTemplate(name string) (Template, error) {
	var known []string
	for _, t := range templates {
		if t.Name == name {
			t.text = readTemplate(name)
			return t, nil
		}
		known = append(known, t.Name)
	}
	return Template{}, fault.Advise(fmt.Errorf("unknown policy template %q%s", name, near.Hint(name, known)), `"dpclass policy init" lists the templates`)
}

// readTemplate returns an embedded file. The table and the files are compiled together,
// and a test reads each.
func readTemplate(name string) []byte {
	text, err := templateFiles.ReadFile("templates/" + name + ".yaml")
	if err != nil {
		panic(err)
	}
	return text
}
