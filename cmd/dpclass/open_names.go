// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/dpclass/dpclass/classifier/names"
	"github.com/dpclass/dpclass/flow"
)

// The directory of names files, and the environment variable that names another one.
const (
	namesDir         = "/etc/dpclass/names.d"
	namesDirVariable = "DPCLASS_NAMES_DIR"
)

// nameFiles is the flag --names of the verbs that look at server names.
type nameFiles []string

// flag adds --names to a verb.
func (n *nameFiles) flag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar((*[]string)(n), "names", nil,
		"names `FILE` to read after "+namesDir+"/*; can be given several times (see \"dpclass names --help\")")
}

// load returns the built-in catalogue with the files of the directory and of the flag.
func (n *nameFiles) load() (*names.Catalogue, error) {
	files, err := names.Files(cmp.Or(os.Getenv(namesDirVariable), namesDir))
	if err != nil {
		return nil, err
	}
	return names.Load(slices.Concat(files, *n)...)
}

// knownApps returns the applications that names and protocols decide. A protocol decides its
// application even where the user's files took it out of the catalogue.
func knownApps(catalogue *names.Catalogue) []string {
	return slices.Concat(catalogue.Apps(), flow.ProtocolApps())
}

// catalogueApps returns the applications that names and protocols decide, for policies.
func catalogueApps(f *nameFiles) ([]string, error) {
	catalogue, err := f.load()
	if err != nil {
		return nil, err
	}
	return knownApps(catalogue), nil
}
