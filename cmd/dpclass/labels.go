// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/near"
)

// checkLabel refuses a label that is neither one of the task's own, nor unknown,
// nor one of the models' beyond the vocabulary. "" is taken.
func checkLabel(task, name string, known, beyond []string) error {
	if name == "" || name == flow.Unknown || slices.Contains(known, name) {
		return nil
	}
	if slices.Contains(beyond, name) && !slices.Contains(flow.Vocabulary, name) {
		return nil
	}
	return fmt.Errorf("%s %q is not known%s\nknown are: %s, %s", task, name, near.Hint(name, known), strings.Join(known, ", "), flow.Unknown)
}
