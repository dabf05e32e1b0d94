// SPDX-License-Identifier: Apache-2.0

// Package bench holds the measurements behind `dpclass bench`.
package bench
