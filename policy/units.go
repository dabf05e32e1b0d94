// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dpclass/dpclass/internal/fault"
)

// The units are those of tc(8), section PARAMETERS: rates with bit are bits and
// with bps bytes a second, SI prefixes are powers of 1000 and IEC ones (ki, mi)
// of 1024; sizes are always powers of 1024. Case does not matter.

// rateUnits are bits per second.
var rateUnits = map[string]float64{
	"": 1, "bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12,
	"kibit": 1 << 10, "mibit": 1 << 20, "gibit": 1 << 30, "tibit": 1 << 40,
	"bps": 8, "kbps": 8e3, "mbps": 8e6, "gbps": 8e9, "tbps": 8e12,
	"kibps": 8 << 10, "mibps": 8 << 20, "gibps": 8 << 30, "tibps": 8 << 40,
}

// sizeUnits are bytes.
var sizeUnits = map[string]float64{
	"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30,
	"t": 1 << 40, "tb": 1 << 40,
	"kbit": 1 << 7, "mbit": 1 << 17, "gbit": 1 << 27,
}

// The limits of a policer.
const (
	MinRate      = 1e3       // bits per second
	MaxRate      = 1e12      // bits per second
	MinBurst     = 1600      // bytes: with less than a full packet, nothing would pass
	MaxBurst     = 1<<32 - 1 // bytes
	minGoodBurst = 128 << 10 // bytes: with less, TCP throughput collapses
	burstSeconds = .25       // the default burst is the rate times this; with less, TCP collapses
)

// ParseRate reads a rate in bits per second, in the units of tc(8): 20mbit, 2.5mbps, 64kibit.
func ParseRate(text string) (uint64, error) {
	value, err := quantity(text, rateUnits)
	if err != nil {
		return 0, fault.Advise(fmt.Errorf("rate %q: %w", text, err), "write it as 512kbit, 20mbit or 1.5gbit; kbps and mbps are bytes a second")
	}
	if value < MinRate || value > MaxRate {
		return 0, fmt.Errorf("rate %q is not between 1kbit and 1tbit", text)
	}
	return uint64(math.Round(value)), nil
}

// ParseSize reads a size in bytes, in the units of tc(8): 256kb, 1m.
func ParseSize(text string) (uint64, error) {
	value, err := quantity(text, sizeUnits)
	if err != nil {
		return 0, fault.Advise(fmt.Errorf("size %q: %w", text, err), "write it as 4000, 256kb or 1mb")
	}
	if value > MaxBurst {
		return 0, fmt.Errorf("size %q is more than 4 GB", text)
	}
	return uint64(math.Round(value)), nil
}

// MaxQuota is the largest quota in bytes.
const MaxQuota = 1 << 50

// ParseQuota reads the bytes of a quota, in the units of tc(8): 500mb, 5gb.
func ParseQuota(text string) (uint64, error) {
	value, err := quantity(text, sizeUnits)
	if err != nil {
		return 0, fault.Advise(fmt.Errorf("quota %q: %w", text, err), "write it as 500mb or 5gb")
	}
	if value < 1 || value > MaxQuota {
		return 0, fmt.Errorf("quota %q is not between 1 byte and 1024 TB", text)
	}
	return uint64(math.Round(value)), nil
}

// quantity reads a number without sign or exponent, and the unit after it.
func quantity(text string, units map[string]float64) (float64, error) {
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	number, err := strconv.ParseFloat(text[:end], 64)
	if err != nil {
		return 0, errors.New("no number")
	}
	unit := strings.ToLower(strings.TrimSpace(text[end:]))
	factor, ok := units[unit]
	if !ok {
		return 0, fmt.Errorf("unknown unit %q", unit)
	}
	return number * factor, nil
}

// DefaultBurst returns the burst in bytes if the policy file gives none: rate x 250 ms,
// at least 128 kB. rate is in bits per second.
func DefaultBurst(rate uint64) uint64 {
	return min(max(uint64(float64(rate)/8*burstSeconds), minGoodBurst), MaxBurst)
}

// FormatRate returns bits per second for people: "20 Mbit/s".
func FormatRate(rate uint64) string {
	return scaled(float64(rate), 1000, "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")
}

// FormatSize returns bytes for people: "610.4 KiB".
func FormatSize(size uint64) string {
	return scaled(float64(size), 1024, "B", "KiB", "MiB", "GiB", "TiB")
}

func scaled(value, base float64, units ...string) string {
	i := 0
	for ; value >= base && i < len(units)-1; i++ {
		value /= base
	}
	text := strconv.FormatFloat(value, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + " " + units[i]
}
