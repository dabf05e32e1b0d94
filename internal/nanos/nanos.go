// SPDX-License-Identifier: Apache-2.0

// Package nanos keeps times in 8 bytes, for tables of millions of flows.
package nanos

import (
	"math"
	"time"
)

// None is the zero time.
const None int64 = math.MinInt64

// Pack returns a time in ns since 1970, None for the zero time. The time must be between
// the years 1678 and 2262, as [time.Time.UnixNano] asks.
func Pack(t time.Time) int64 {
	if t.IsZero() {
		return None
	}
	return t.UnixNano()
}

// Unpack returns a packed time, in UTC.
func Unpack(ns int64) time.Time {
	if ns == None {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
