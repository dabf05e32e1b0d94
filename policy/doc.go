// SPDX-License-Identifier: Apache-2.0

// Package policy reads policy files: it parses and checks them strictly, compiles
// them to a flow.Policy and explains the result to people.
//
// A file with an error is rejected as a whole. Errors name file, line and column.
package policy
