// SPDX-License-Identifier: Apache-2.0

package names

import (
	"errors"
	"fmt"
)

// Problem is what is wrong with a line of a file.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1; 0 for the whole file
	Text string `json:"problem"`
	Do   string `json:"advice,omitempty"` // what to do, a short phrase
}

// Error returns "FILE:LINE: text".
func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Advice returns what to do about it.
func (p *Problem) Advice() string { return p.Do }

// Problems returns the problems of an error that [Load] returned.
func Problems(err error) []*Problem {
	var one *Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, err := range joined.Unwrap() {
			all = append(all, Problems(err)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Problem{one}
	}
	return nil
}

// maxProblems limits the problems that are kept: in a file of another kind, each line
// is one.
const maxProblems = 100

// problems collects what is wrong.
type problems struct {
	all  []error
	more int
}

// add notes a problem. The text is a format if there are args.
func (p *problems) add(at place, do, text string, args ...any) {
	if len(p.all) == maxProblems {
		p.more++
		return
	}
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	p.all = append(p.all, &Problem{File: at.file, Line: at.line, Text: text, Do: do})
}

// err returns the problems as one error, or nil.
func (p *problems) err() error {
	all := p.all
	if p.more > 0 {
		all = append(all, &Problem{File: "names", Text: fmt.Sprintf("%d problems more", p.more), Do: "correct the first ones and check again"})
	}
	return errors.Join(all...)
}

// place is a line of a file.
type place struct {
	file string
	line int
}
