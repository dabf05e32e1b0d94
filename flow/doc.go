// SPDX-License-Identifier: Apache-2.0

// Package flow holds the words that every other package uses: the 5-tuple, the
// FLOW expression of the command line, labels, samples, verdicts, the policy
// in its compiled form and the flow record that is printed.
//
// It imports the standard library only.
package flow
