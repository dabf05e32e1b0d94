// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"regexp"
	"strings"
)

//go:generate go run ../internal/genlabels

// Unknown is the verdict of a flow that belongs to none of a model's classes.
// It is never a class of a model.
const Unknown = "unknown"

// IsVPN reports whether a category is VPN traffic, seen inside or outside of the
// tunnel.
func IsVPN(category string) bool { return strings.HasPrefix(category, "vpn-") }

// nameRule applies to labels and model names: they go into kernel maps, file names
// and policy files.
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

// NameRule says in words what ValidName accepts.
const NameRule = "1 to 32 characters from a-z, 0-9, '.', '_' and '-', a letter or digit first"

// ValidName reports whether a label or a model may have this name.
func ValidName(name string) bool { return nameRule.MatchString(name) }
