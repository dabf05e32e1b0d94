// SPDX-License-Identifier: Apache-2.0

// Package fault lets errors carry advice. The text of an error is one line that says
// what is wrong. The advice says what to do about it; only the command line prints it.
package fault

import (
	"errors"
	"fmt"
)

// advised is an error with advice.
type advised struct {
	error
	advice string
}

func (e *advised) Unwrap() error  { return e.error }
func (e *advised) Advice() string { return e.advice }

// Advise returns err with advice attached, or nil if err is nil. The advice is a short
// phrase that says what to do, without a full stop. It is a format if there are args.
func Advise(err error, advice string, args ...any) error {
	if err == nil {
		return nil
	}
	if len(args) > 0 {
		advice = fmt.Sprintf(advice, args...)
	}
	return &advised{err, advice}
}

// Advice returns the advice of all errors in the tree of err, outermost first and
// without repetition.
func Advice(err error) []string {
	var all []string
	seen := map[string]bool{}
	var walk func(error)
	walk = func(err error) {
		if a, ok := err.(interface{ Advice() string }); ok && !seen[a.Advice()] {
			seen[a.Advice()] = true
			all = append(all, a.Advice())
		}
		switch e := err.(type) { //nolint:errorlint // this walks the tree itself, node by node
		case interface{ Unwrap() error }:
			if inner := e.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		}
	}
	if err != nil {
		walk(err)
	}
	return all
}

// New returns an error with that text and advice.
func New(text, advice string) error { return &advised{errors.New(text), advice} }
