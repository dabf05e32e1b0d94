// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/fault"
)

// skips notes the captures that a verb could not read, and goes on with the others.
type skips struct {
	progress *cli.Progress
	of       int // captures in all
	names    []string
	first    error
}

// add notes a capture, and says at once why it is skipped. The error of the only capture
// is said at the end.
func (s *skips) add(name string, err error) {
	s.names = append(s.names, name)
	if s.first == nil {
		s.first = err
	}
	if s.of > 1 {
		s.progress.Note("dpclass: skipped: %v", err)
		for _, advice := range fault.Advice(err) {
			s.progress.Note("  %s", advice)
		}
	}
}

// err returns nil if nothing was skipped, else an error that lists the captures.
func (s *skips) err() error {
	switch {
	case len(s.names) == 0:
		return nil
	case s.of == 1:
		return s.first
	}
	const most = 20
	var quoted []string
	for _, name := range s.names[:min(len(s.names), most)] {
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	if more := len(s.names) - most; more > 0 {
		quoted = append(quoted, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("skipped %d of %d captures, the others are complete: %s", len(s.names), s.of, strings.Join(quoted, ", "))
}
