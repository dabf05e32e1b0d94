// SPDX-License-Identifier: Apache-2.0

// Package flow defines the types that all other packages share: the 5-tuple and its
// FLOW expression, labels, samples, verdicts, the compiled policy, and the record of a
// flow that the command line prints.
//
// It imports only the standard library.
package flow
