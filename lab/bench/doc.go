// SPDX-License-Identifier: Apache-2.0

// Package bench measures what dpclass costs on this machine, for `dplab bench`.
package bench
