// SPDX-License-Identifier: Apache-2.0

// Package loader is the kernel side of dpclass: it loads the BPF programs,
// attaches them to an interface and gives typed access to their maps.
//
// [Attach] attaches the programs and returns an [Attachment], with the [Ring] of
// samples. [Open] returns the [Pins] of an interface that any process has
// attached. Both have the [Table] of flows, the [Rules] of the policy, the labels
// and the counters.
//
// All maps and links of an interface are pinned in one directory, so that verdicts and
// policy outlive the process that attached.
package loader

import "errors"

// Errors that callers can check for with errors.Is.
var (
	ErrNotAttached = errors.New("dpclass is not attached")
	ErrAttaching   = errors.New("dpclass is being attached")
	ErrNoFlow      = errors.New("no such flow")
	ErrBusy        = errors.New("another agent is attached")
	ErrForeignXDP  = errors.New("another XDP program is attached")
	ErrOldKernel   = errors.New("the kernel is too old")
)
