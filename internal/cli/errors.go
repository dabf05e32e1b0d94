// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/dpclass/dpclass/internal/fault"
)

// usageError is an error in how a verb was called. Its exit code is 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as wrong usage.
func Usage(err error) error { return usageError{err} }

// Usagef returns an error of wrong usage.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// quietError ends a verb with exit code 1 and without a message.
type quietError struct{ error }

// Quiet returns an error that is not printed, because the verb's output says it already.
func Quiet(text string) error { return quietError{errors.New(text)} }

// IsQuiet reports whether an error was made by Quiet.
func IsQuiet(err error) bool {
	var quiet quietError
	return errors.As(err, &quiet)
}

const (
	maxErrors = 3 // errors printed of several
	maxAdvice = 2 // lines of advice printed after each
)

// printError prints each error of a tree of joined errors as one line, followed by
// lines of advice.
func printError(w io.Writer, program string, err error) {
	all := split(err)
	for _, one := range all[:min(len(all), maxErrors)] {
		fmt.Fprintf(w, "%s: %s\n", program, fault.Printable(oneLine(one.Error())))
		advice := adviceOn(one, os.Geteuid())
		for _, line := range advice[:min(len(advice), maxAdvice)] {
			fmt.Fprintf(w, "  %s\n", fault.Printable(line))
		}
	}
	if more := len(all) - maxErrors; more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// adviceOn returns the advice of an error, and where it has none about missing rights, what
// gives them to a process of that user.
func adviceOn(err error, uid int) []string {
	advice := fault.Advice(err)
	if len(advice) == 0 && uid != 0 && errors.Is(err, fs.ErrPermission) {
		advice = append(advice, "this needs more rights: run it with sudo")
	}
	return advice
}

// split returns the errors that errors.Join put together, or the error alone. An
// error that wraps several in a text of its own is one error.
func split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var texts []string
	for _, one := range joined.Unwrap() {
		texts = append(texts, one.Error())
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, split(one)...)
	}
	return all
}

// oneLine keeps foreign errors from breaking the output.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
