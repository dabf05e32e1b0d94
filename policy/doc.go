// SPDX-License-Identifier: Apache-2.0

// Package policy reads the policy file: it parses and checks it strictly,
// compiles it to a flow.Policy and explains that to people.
//
// A file is valid as a whole or not at all. Errors name file, line and column.
package policy
