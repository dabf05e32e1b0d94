// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/near"
)

// codepoint is a DSCP by its name.
type codepoint struct {
	name  string
	value int
}

// codepoints are the DSCP names of RFC 2474 (CS0 to CS7, DF), RFC 2597 (AF),
// RFC 3246 (EF), RFC 5865 (VA) and RFC 8622 (LE). If a value has several names, the
// first one is printed.
var codepoints = []codepoint{
	{"CS0", 0}, {"DF", 0}, {"CS1", 8}, {"CS2", 16}, {"CS3", 24}, {"CS4", 32}, {"CS5", 40}, {"CS6", 48}, {"CS7", 56},
	{"AF11", 10}, {"AF12", 12}, {"AF13", 14},
	{"AF21", 18}, {"AF22", 20}, {"AF23", 22},
	{"AF31", 26}, {"AF32", 28}, {"AF33", 30},
	{"AF41", 34}, {"AF42", 36}, {"AF43", 38},
	{"EF", 46}, {"VA", 44}, {"LE", 1},
}

// ParseDSCP reads a DSCP: a name or a number from 0 to 63.
func ParseDSCP(text string) (int, error) {
	i := slices.IndexFunc(codepoints, func(c codepoint) bool { return strings.EqualFold(c.name, text) })
	if i >= 0 {
		return codepoints[i].value, nil
	}
	if value, err := strconv.ParseUint(text, 10, 6); err == nil {
		return int(value), nil
	}
	var names []string
	for _, c := range codepoints {
		names = append(names, c.name)
	}
	return 0, fault.Advise(fmt.Errorf("unknown DSCP %q%s", text, near.Hint(text, names)), "write CS0 to CS7, AF11 to AF43, EF, VA, LE or 0 to 63")
}

// FormatDSCP returns the name of a DSCP with its number, or the number alone.
func FormatDSCP(value int) string {
	i := slices.IndexFunc(codepoints, func(c codepoint) bool { return c.value == value })
	if i >= 0 {
		return fmt.Sprintf("%s (%d)", codepoints[i].name, value)
	}
	return strconv.Itoa(value)
}
