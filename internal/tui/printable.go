// SPDX-License-Identifier: Apache-2.0

package tui

import "github.com/dpclass/dpclass/internal/fault"

// Printable returns a text as a terminal may show it: see [fault.Printable].
func Printable(text string) string { return fault.Printable(text) }
